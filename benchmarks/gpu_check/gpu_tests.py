"""The tests that need a GPU, in parallel where pytest-xdist is there; a row for each.

`pytest_rows.py` writes them as they end.
"""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from gpu_check.check import Check

ROOT = Path(__file__).resolve().parents[2]
WORKERS = 8
# Neither these nor what they import need DeepSpeed, webdataset or submitit.
PLACES = ["tests/kernels", "tests/encoders/test_compiled.py", "tests/pretraining/test_host_syncs.py"]


def main(check: Check) -> int:
    parallel = find_spec("xdist") is not None and not check.rehearsal
    why = "" if parallel else "a rehearsal" if check.rehearsal else "pytest-xdist is not installed"
    check.row(what="way", workers=WORKERS if parallel else 1, why=why)
    command = [
        sys.executable, "-m", "pytest", "-m", "gpu", *PLACES, "-q", "-p", "no:cacheprovider",
        "-p", "gpu_check.pytest_rows", "--check-out", str(check.out), "--junitxml", str(check.out / "tests.xml"),
        *(["-n", str(WORKERS)] if parallel else []),
        *(["--collect-only", "-p", "gpu_check.without_training"] if check.rehearsal else []),
    ]  # fmt: skip
    return subprocess.run(command, cwd=ROOT).returncode


if __name__ == "__main__":
    sys.exit(main(Check.from_arguments("gpu_tests")))
