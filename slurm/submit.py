"""`python slurm/submit.py --nodes N --config C [key=value ...]`: `relvlm submit` by another name."""

import sys

from relvlm.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "submit")
    main()
