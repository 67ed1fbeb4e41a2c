"""The compiled library `_cpu.so`: what it can run, and the structures that it takes (csrc/cpu: attention.h, plan.h,
fused_rows.h)."""

from __future__ import annotations

import os
from ctypes import CDLL, c_double, c_int32, c_int64, c_uint32, c_uint64, c_void_p
from typing import Any

import torch

from relvlm_kernels.checks import BAD_BOX, BAD_IMAGE, BAD_OFFSETS
from relvlm_kernels.native import Library, Structure, fields

DTYPES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}  # `Type` in C
ERRORS = {1: BAD_OFFSETS, 2: BAD_IMAGE, 3: BAD_BOX}  # `Status` in C
NO_MEMORY = 4


class Call(Structure):
    __slots__ = ()
    _fields_ = fields(
        (c_void_p, "q k v grad bias mask out lse dq dk dv dbias"),
        (c_int64, "q_row q_head k_row k_head v_row v_head grad_row grad_head"),
        (c_int64, "dq_row dq_head dk_row dk_head dv_row dv_head"),
        (c_int64, "queries keys heads width bias_row masks chunk"),
        (c_double, "scale keep_scale"),
        (c_uint64, "seed"),
        (c_uint32, "drop_below"),
        (c_int32, "type backward threads"),
    )


class Groups(Structure):
    __slots__ = ()
    _fields_ = fields(
        (c_void_p, "offsets image box prefix mean"),
        (c_int32, "count images tokens grid_rows grid_columns partial"),
    )


class BoxMean(Structure):
    __slots__ = ()
    _fields_ = fields(
        (c_void_p, "source to box image"),
        (c_int64, "source_image source_row width"),
        (c_int32, "groups images tokens grid_rows grid_columns type backward threads"),
    )


class AddNorm(Structure):
    _fields_ = fields(
        (c_void_p, "x residual weight shift out total mean rstd grad dresidual dx dweight dshift"),
        (c_int64, "rows width"),
        (c_double, "eps keep_scale"),
        (c_uint64, "seed"),
        (c_uint32, "drop_below"),
        (c_int32, "type backward threads"),
    )


class BiasGelu(Structure):
    _fields_ = fields(
        (c_void_p, "x bias grad out dx dbias"),
        (c_int64, "rows width"),
        (c_int32, "type backward threads"),
    )


def _select_asked(library: CDLL) -> None:
    asked = os.environ.get("RELVLM_CPU_ISA")
    if asked and not library.relvlm_select(asked.encode()):
        raise RuntimeError(f"RELVLM_CPU_ISA={asked}: not compiled, or not of this processor")


FUNCTIONS: dict[str, tuple[Any, ...]] = {
    "region_attention": (Call, Groups),
    "varlen_attention": (Call, c_void_p, c_void_p, c_int32),
    "box_mean": (BoxMean,),
    "add_norm": (AddNorm,),
    "bias_gelu": (BiasGelu,),
    "openmp": (),
}
LIBRARY = Library("cpu", "relvlm_", (Call, Groups, BoxMean, AddNorm, BiasGelu), FUNCTIONS, _select_asked)


def missing() -> str:
    """Why the backend cannot run here; empty where it can."""
    return LIBRARY.missing


def refusal(device: torch.device, dtype: torch.dtype, width: int | None) -> str:
    """Why it does not take such tensors; empty where it does. It takes heads of any width."""
    return "" if device.type == "cpu" and dtype in DTYPES else f"no kernels for {dtype} on {device}"


def description() -> str:
    """Instruction set and threading of the loaded kernels."""
    threads = "OpenMP" if LIBRARY.call("openmp") else "built without OpenMP: one thread"
    asked = " (RELVLM_CPU_ISA)" if os.environ.get("RELVLM_CPU_ISA") else ""
    return f"{instructions()}{asked}, {threads}"


def instructions() -> str:
    """Name of the kernels in use: "avx512", "avx2" or "baseline"."""
    return LIBRARY.text("instructions")


def run(op: str, function: str, *arguments: Structure | int) -> None:
    """Raises ValueError where index tensors are wrong, MemoryError where memory is short."""
    status = LIBRARY.call(function, *arguments)
    if status == NO_MEMORY:
        raise MemoryError(f"{op}: no memory for the packed keys of one image or sequence")
    if status:
        raise ValueError(f"{op}: {ERRORS[status]}")


def int32(x: torch.Tensor) -> torch.Tensor:
    return x if x.dtype == torch.int32 and x.is_contiguous() else x.to(torch.int32).contiguous()
