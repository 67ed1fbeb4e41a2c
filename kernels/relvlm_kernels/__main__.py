"""`python -m relvlm_kernels`: which backends can run here, why the others cannot, and which one runs for what."""

import torch

from relvlm_kernels import cpu
from relvlm_kernels.backends import BACKENDS, CPU, Backend, chosen


def main() -> None:
    print(f"torch {torch.__version__}")
    for backend in BACKENDS:
        print(f"{backend.name:10s} {_state(backend)}")
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        print(f"cpu tensors of {str(dtype).removeprefix('torch.'):9s} -> {_choice(dtype)}")


def _state(backend: Backend) -> str:
    if backend.missing:
        return f"not usable: {backend.missing}"
    state = "usable (chosen)" if _choice(torch.float32) == backend.name else "usable"
    return f"{state}: {cpu.description()}" if backend is CPU else state


def _choice(dtype: torch.dtype) -> str:
    try:
        return chosen("cpu", dtype).name
    except RuntimeError as error:
        return str(error)


if __name__ == "__main__":
    main()
