"""Says which torch, triton and GPU there are; status 1 where one is missing."""

from __future__ import annotations

import platform
import sys
from importlib import import_module

from gpu_check.check import Check


def main(check: Check) -> int:
    try:
        torch, triton = (import_module(name) for name in ("torch", "triton"))
    except ImportError as error:
        print(f"{sys.executable}: {error} (give one that has torch and triton: make gpu-check PYTHON=...)")
        return 1
    print(f"Python {platform.python_version()}, torch {torch.__version__}, triton {triton.__version__}")
    if check.rehearsal:
        print("a rehearsal on the CPU: no number means anything")
        return 0
    if not torch.cuda.is_available():
        print("make gpu-check: torch finds no NVIDIA GPU on this machine")
        return 1
    print(f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}")
    return 0


if __name__ == "__main__":
    sys.exit(main(Check.from_arguments("preflight")))
