"""`python -m relvlm_kernels`: which backends can run here, and why the others cannot."""

import torch

from relvlm_kernels.backends import BACKENDS, chosen


def main() -> None:
    print(f"torch {torch.__version__}")
    for backend in BACKENDS:
        state = f"not usable: {backend.missing}" if backend.missing else "usable"
        print(f"{backend.name:10s} {state}{' (chosen)' if backend == chosen() else ''}")


if __name__ == "__main__":
    main()
