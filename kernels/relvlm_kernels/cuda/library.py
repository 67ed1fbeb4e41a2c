"""The compiled library `_cuda.so`: loading it with ctypes, what it can run, and the structures it takes."""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

LIBRARY = Path(__file__).parents[1] / "_cuda.so"
BUILD_RECORD = LIBRARY.with_suffix(".txt")  # by setup.py: how it was built, or why not
REINSTALL = "run pip install again in the source tree"
ELEMENTS = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}  # `Element` of csrc/cuda/call.h
OLDEST = (8, 0)  # compute capability


def _fields(*types: tuple[type, str]) -> list[tuple[str, type]]:
    return [(name, of) for of, names in types for name in names.split()]


class Plan(ctypes.Structure):
    _fields_ = _fields((ctypes.c_void_p, "views items query_tiles key_tiles"))


class Index(ctypes.Structure):
    _fields_ = _fields(
        (ctypes.c_void_p, "offsets key_offsets image box prefix mean"),
        (ctypes.c_int32, "count grid_rows grid_columns tokens"),
    )


class Attention(ctypes.Structure):
    """`Call` of csrc/cuda/call.h."""

    _fields_ = _fields(
        (ctypes.c_void_p, "q k v grad saved out dq dk dv lse states seed stream"),
        (Plan, "plan"),
        (Index, "index"),
        (ctypes.c_int64, "q_row q_head k_row k_head v_row v_head grad_row grad_head"),
        (ctypes.c_int64, "dk_row dk_head dv_row dv_head"),
        (ctypes.c_int32, "queries keys heads width items element backward device"),
        (ctypes.c_float, "scale dropout kept"),
        (ctypes.c_uint32, "threshold unused"),
    )


class BoxMean(ctypes.Structure):
    """These three: csrc/cuda/pool.h."""

    _fields_ = _fields(
        (ctypes.c_void_p, "source to box image stream"),
        (ctypes.c_int64, "source_image source_row"),
        (ctypes.c_int32, "count images tokens width grid_rows grid_columns element backward device"),
    )


class PairLinear(ctypes.Structure):
    _fields_ = _fields(
        (ctypes.c_void_p, "h weight bias out subject object stream"),
        (ctypes.c_int64, "rows"),
        (ctypes.c_int32, "pairs width features element device"),
    )


class RowSums(ctypes.Structure):
    _fields_ = _fields(
        (ctypes.c_void_p, "source to places starts stream"),
        (ctypes.c_int32, "rows width element device"),
    )


STRUCTURES = (Attention, BoxMean, PairLinear, RowSums)


def missing() -> str:
    """Why the backend cannot run here; empty where it can."""
    try:
        load()
    except OSError as error:
        return str(error)
    return "" if torch.cuda.is_available() else "torch finds no CUDA device"


def takes(device: torch.device, dtype: torch.dtype) -> bool:
    return device.type == "cuda" and dtype in ELEMENTS and _capability(device) >= OLDEST


@cache
def _capability(device: torch.device) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device)


def description() -> str:
    return BUILD_RECORD.read_text().strip() if BUILD_RECORD.exists() else "built by hand"


@cache
def load() -> ctypes.CDLL:
    """The compiled kernels; raises OSError saying why there are none."""
    if not LIBRARY.exists():
        record = BUILD_RECORD.read_text() if BUILD_RECORD.exists() else f"not built ({REINSTALL})"
        raise OSError(f"{LIBRARY.name}: {record.strip()}")
    library = ctypes.CDLL(str(LIBRARY))
    library.relvlm_cuda_error.restype = ctypes.c_char_p
    if library.relvlm_cuda_call_bytes() != sum(map(ctypes.sizeof, STRUCTURES)):
        raise OSError(f"{LIBRARY}: built from other sources than this Python code ({REINSTALL})")
    return library


class Prepared:
    """A structure to fill, and the tensors it points at, which must outlive the call."""

    def __init__(self, struct: ctypes.Structure, like: Tensor) -> None:
        self.struct = struct
        self.device = like.device
        self._alive: list[Tensor] = []
        self.set(element=ELEMENTS[like.dtype], device=max(like.get_device(), 0))

    def set(self, **values: float) -> None:
        for name, value in values.items():
            setattr(self.struct, name, value)

    def point(self, **tensors: Tensor | None) -> None:
        for name, x in tensors.items():
            if x is not None:
                setattr(self.struct, name, x.data_ptr())
                self.keep(x)

    def keep(self, *tensors: Tensor) -> None:
        self._alive += tensors

    def run(self, function: str) -> None:
        """Starts the kernels on the current stream of the tensors' device; raises RuntimeError of CUDA."""
        library = load()
        with torch.cuda.device(self.device):
            self.set(stream=torch.cuda.current_stream().cuda_stream)
            status = getattr(library, function)(ctypes.byref(self.struct))
        if status:
            raise RuntimeError(f"{function}: {library.relvlm_cuda_error(status).decode()}")


def check(op: str, **tensors: Tensor) -> None:
    """Raises ValueError where dtypes or devices disagree, or no kernel takes them."""
    first, *others = tensors.values()
    agree = all(x.dtype == first.dtype and x.device == first.device for x in others)
    if not agree or first.dtype not in ELEMENTS:
        found = ", ".join(f"{name} {x.dtype} on {x.device}" for name, x in tensors.items())
        names = ", ".join(str(dtype).removeprefix("torch.") for dtype in ELEMENTS)
        raise ValueError(f"{op}: {found}: expected tensors of one device and one dtype of {names}")


def int32(x: Tensor, device: torch.device) -> Tensor:
    return x.to(device, torch.int32).contiguous()
