"""`python slurm/submit.py --nodes N --config C [key=value ...]`: the same as `relvlm submit`."""

import argparse
import sys

from relvlm.errors import UserError
from relvlm.submit import add_arguments, main

if __name__ == "__main__":
    parser = argparse.ArgumentParser("submit.py")
    add_arguments(parser)
    try:
        main(parser.parse_intermixed_args())
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
