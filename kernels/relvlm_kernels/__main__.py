"""`python -m relvlm_kernels`: which backends can run here, why the others cannot, and which one runs for what."""

import torch

from relvlm_kernels.backends import BACKENDS, Backend, chosen

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def main() -> None:
    print(f"torch {torch.__version__}")
    for backend in BACKENDS.values():
        print(f"{backend.name:10s} {_state(backend)}")
    for device in _devices():
        for dtype in DTYPES:
            print(f"{device} tensors of {str(dtype).removeprefix('torch.'):9s} -> {_choice(device, dtype)}")


def _state(backend: Backend) -> str:
    refusals = [backend.refusal(torch.device(device), torch.float32) for device in _devices()]
    reason = backend.missing or ("" if "" in refusals else refusals[-1])
    if reason:
        return f"not usable: {reason}"
    is_chosen = any(_choice(device, torch.float32) == backend.name for device in _devices())
    return f"{'usable (chosen)' if is_chosen else 'usable'}: {backend.ops.description()}"


def _devices() -> list[str]:
    return ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def _choice(device: str, dtype: torch.dtype) -> str:
    try:
        return chosen(device, dtype).name
    except RuntimeError as error:
        return str(error)


if __name__ == "__main__":
    main()
