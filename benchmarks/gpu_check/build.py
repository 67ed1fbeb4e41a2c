"""Builds the kernels in place and says which backends can run; status 3 where cuda is not among them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from gpu_check.check import Check
from gpu_check.stages import MISSING

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "kernels" / "relvlm_kernels"
COMMAND = [sys.executable, "setup.py", "build_ext", "--inplace"]


def main(check: Check) -> int:
    if check.rehearsal:
        return _rehearse(check)
    if not up_to_date():
        done = subprocess.run(COMMAND, cwd=ROOT, env=os.environ | {"RELVLM_CUDA": "1"})
        if done.returncode:
            check.row(backend="cuda", missing=f"setup.py ended with {done.returncode}")
            return MISSING
    return _say_what_runs(check)


def up_to_date() -> bool:
    """Whether there is a library that is newer than all its sources."""
    library = PACKAGE / "_cuda.so"
    sources = [ROOT / "setup.py", *(path for path in (ROOT / "csrc").rglob("*") if path.is_file())]
    return library.exists() and library.stat().st_mtime > max(path.stat().st_mtime for path in sources)


def _say_what_runs(check: Check) -> int:
    from relvlm_kernels.backends import BACKENDS

    for backend in BACKENDS.values():
        how = {"missing": backend.missing} if backend.missing else {"built": backend.ops.description()}
        check.row(backend=backend.name, **how)
    return MISSING if BACKENDS["cuda"].missing else 0


def _rehearse(check: Check) -> int:
    """The same in a copy, with a compiler that fails and without CUDA's: seconds instead of minutes."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("csrc", "kernels"):
            shutil.copytree(ROOT / name, Path(folder) / name, ignore=shutil.ignore_patterns("_c*.so", "_c*.txt"))
        for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, folder)
        environment = os.environ | {"RELVLM_CUDA": "0", "CXX": "false"}
        subprocess.run(COMMAND, cwd=folder, env=environment, check=True)
        package = Path(folder) / "kernels" / "relvlm_kernels"
        for name in ("cpu", "cuda"):
            check.row(backend=name, built=(package / f"_{name}.txt").read_text().splitlines()[0][:60])
    return 0


if __name__ == "__main__":
    sys.exit(main(Check.from_arguments("build")))
