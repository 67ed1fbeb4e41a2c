"""The compiled library `_cuda.so`: what it can run, and the structures that it takes (csrc/cuda/call.h, pool.h)."""

from __future__ import annotations

from ctypes import c_float, c_int32, c_int64, c_uint32, c_void_p
from functools import cache
from typing import Any

import torch
from torch import Tensor

from relvlm_kernels.native import Library, Structure, fields

ELEMENTS = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}  # `Element` of csrc/cuda/call.h
WIDTHS = (32, 64, 80, 96, 128)  # of the heads that kernels are compiled for
OLDEST = (8, 0)  # compute capability
ALIGNMENT = 16  # bytes that are copied at once


class Plan(Structure):
    __slots__ = ()
    _fields_ = fields((c_void_p, "views items query_tiles key_tiles"))


class Index(Structure):
    __slots__ = ()
    _fields_ = fields(
        (c_void_p, "offsets key_offsets image box prefix mean"),
        (c_int32, "count grid_rows grid_columns tokens"),
    )


class Call(Structure):
    __slots__ = ()
    _fields_ = fields(
        (c_void_p, "q k v grad saved out dq dk dv lse states seed stream"),
        (Plan, "plan"),
        (Index, "index"),
        (c_int64, "q_row q_head k_row k_head v_row v_head grad_row grad_head"),
        (c_int64, "dq_row dq_head dk_row dk_head dv_row dv_head"),
        (c_int32, "queries keys heads width items element backward device"),
        (c_float, "scale dropout kept"),
        (c_uint32, "threshold"),
        (c_int32, "partial planned"),
    )


class BoxMean(Structure):
    __slots__ = ()
    _fields_ = fields(
        (c_void_p, "source to box image stream"),
        (c_int64, "source_image source_row"),
        (c_int32, "count images tokens width grid_rows grid_columns element backward device"),
    )


class PairLinear(Structure):
    __slots__ = ()
    _fields_ = fields(
        (c_void_p, "h weight bias out subject object stream"),
        (c_int64, "rows"),
        (c_int32, "pairs width features element device"),
    )


class RowSums(Structure):
    __slots__ = ()
    _fields_ = fields(
        (c_void_p, "source to places starts stream"),
        (c_int32, "rows width element device"),
    )


FUNCTIONS: dict[str, tuple[Any, ...]] = {
    "attention": (Call,),
    "box_mean": (BoxMean,),
    "pair_linear": (PairLinear,),
    "row_sums": (RowSums,),
    "trial": (c_int32,),
    "shared_bytes": (c_int32, c_int32),
    "shared_limit": (c_int32,),
}
LIBRARY = Library("cuda", "relvlm_cuda_", (Plan, Index, Call, BoxMean, PairLinear, RowSums), FUNCTIONS)


def missing() -> str:
    """Why the backend cannot run here; empty where it can."""
    return LIBRARY.missing or ("" if torch.cuda.is_available() else "torch finds no CUDA device")


def refusal(device: torch.device, dtype: torch.dtype, width: int | None) -> str:
    """Why it does not take such tensors; empty where it does. At the first call for a GPU a kernel is tried on it."""
    if device.type != "cuda" or dtype not in ELEMENTS:
        return f"no kernels for {dtype} on {device}"
    index = torch.cuda.current_device() if device.index is None else device.index
    return _trial(index) or ("" if width is None else _too_wide(index, dtype, width))


@cache
def _trial(index: int) -> str:
    """Why no kernel starts on this GPU: a driver that is too old, code for other GPUs alone."""
    if torch.cuda.get_device_capability(index) < OLDEST:
        return f"{torch.cuda.get_device_name(index)} is older than sm_80"
    status = LIBRARY.call("trial", index)
    return f"a trial of it failed: {LIBRARY.text('error', status)}" if status else ""


def _too_wide(index: int, dtype: torch.dtype, width: int) -> str:
    padded = padded_width(width)
    if padded is None:
        return f"no kernels for heads of {width}"
    needed, there = LIBRARY.call("shared_bytes", ELEMENTS[dtype], padded), LIBRARY.call("shared_limit", index)
    if needed <= there:
        return ""
    return f"heads of {width} in {dtype} need {needed} bytes of shared memory, {there} are there"


@cache
def padded_width(width: int) -> int | None:
    """That of the next kernel; None where there is none."""
    return next((w for w in WIDTHS if w >= width), None)


def description() -> str:
    return LIBRARY.record


class Launch:
    """The structure of a call on the device of `like`; that and the other tensors that it points at must outlive it."""

    def __init__(self, struct: Structure, like: Tensor, *alive: Tensor) -> None:
        self.struct: Any = struct
        self.alive = [like, *alive]
        self.struct.element, self.struct.device = ELEMENTS[like.dtype], like.device.index or 0

    def run(self, function: str) -> None:
        """Starts the kernels on the current stream of the tensors' device; raises RuntimeError of CUDA."""
        index = self.struct.device
        if index == current_device():
            status = self._start(function)
        else:
            with torch.cuda.device(index):
                status = self._start(function)
        if status:
            raise RuntimeError(f"{function}: {LIBRARY.text('error', status)}")

    def _start(self, function: str) -> int:
        self.struct.stream = current_stream(self.struct.device)
        return LIBRARY.call(function, self.struct)


def current_device() -> int:
    return torch._C._cuda_getDevice()


def current_stream(device: int) -> int:
    """Its address: `torch.cuda.current_stream` makes an object of it, which takes as long as a launch."""
    return torch._C._cuda_getCurrentRawStream(device)


def int32(x: Tensor) -> Tensor:
    return x.to(torch.int32).contiguous()


def dense(x: Tensor) -> Tensor:
    """`x`, contiguous and aligned, as a parameter out of a flat buffer of several need not be."""
    x = x.contiguous()
    return x if x.data_ptr() % ALIGNMENT == 0 else x.clone()
