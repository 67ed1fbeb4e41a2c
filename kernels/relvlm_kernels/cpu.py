"""The `cpu` backend: the attention ops in C++ (csrc/cpu), loaded with ctypes from `_cpu.so` beside this file.

Same signatures as in `reference`; the other two ops are those of `reference`. Index tensors are checked in C++,
and what is wrong with them is a ValueError. Runs on `torch.get_num_threads()` threads where OpenMP was there at
build time; results do not depend on their number.
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from relvlm_kernels import reference
from relvlm_kernels.reference import box_mean, box_mean_backward, mrc_pool, mrc_pool_backward
from relvlm_kernels.regions import Regions

__all__ = [
    "box_mean", "box_mean_backward", "mrc_pool", "mrc_pool_backward", "region_attention",
    "region_attention_backward", "varlen_attention", "varlen_attention_backward",
]  # fmt: skip

DTYPES = (torch.float32, torch.float64)
LIBRARY = Path(__file__).with_name("_cpu.so")
BUILD_RECORD = Path(__file__).with_name("_cpu.txt")  # by setup.py: how it was built, or why not
REINSTALL = "run pip install again in the source tree"


class _Call(ctypes.Structure):
    """Mirrors `Call` of csrc/cpu/attention.h."""

    _fields_ = (
        [(name, ctypes.c_void_p) for name in ("q", "k", "v", "grad", "out", "lse", "dq", "dk", "dv")]
        + [(f"{name}_{stride}", ctypes.c_int64) for name in "qkv" for stride in ("row", "head")]
        + [(name, ctypes.c_int64) for name in ("grad_row", "grad_head", "queries", "keys", "heads", "width")]
        + [("scale", ctypes.c_double)]
        + [(name, ctypes.c_int32) for name in ("is_double", "backward", "threads")]
    )


class _Groups(ctypes.Structure):
    """Mirrors `Groups` of csrc/cpu/plan.h."""

    _fields_ = [(name, ctypes.c_void_p) for name in ("offsets", "image", "box", "prefix", "mean")] + [
        (name, ctypes.c_int32) for name in ("count", "images", "tokens", "grid_rows", "grid_columns")
    ]


_ERRORS = {  # `Status` of csrc/cpu/plan.h
    1: "offsets must rise from 0 to the number of packed rows",
    2: "a group's image is no row of k and v",
    3: "a group's box is empty or leaves the grid",
}
_NO_MEMORY = 4


def missing() -> str:
    """Why the backend cannot run here; empty where it can."""
    try:
        _library()
    except OSError as error:
        return str(error)
    return ""


def takes(device: torch.device, dtype: torch.dtype) -> bool:
    return device.type == "cpu" and dtype in DTYPES


@cache
def _library() -> ctypes.CDLL:
    """The compiled kernels; raises OSError saying why there are none."""
    if not LIBRARY.exists():
        record = BUILD_RECORD.read_text() if BUILD_RECORD.exists() else f"not built ({REINSTALL})"
        raise OSError(f"{LIBRARY.name}: {record.strip()}")
    library = ctypes.CDLL(str(LIBRARY))
    library.relvlm_instructions.restype = ctypes.c_char_p
    if library.relvlm_call_bytes() != ctypes.sizeof(_Call):
        raise OSError(f"{LIBRARY}: built from other sources than this Python code ({REINSTALL})")
    return library


def description() -> str:
    """Instruction set and threading of the loaded kernels."""
    threads = "OpenMP" if _library().relvlm_openmp() else "built without OpenMP: one thread"
    return f"{instructions()}, {threads}"


def instructions() -> str:
    """Name of the kernels in use: "avx512", "avx2" or "baseline"."""
    return _library().relvlm_instructions().decode()


def select_instructions(name: str) -> bool:
    """Takes the kernels of another instruction set; False where this processor or library has none."""
    return bool(_library().relvlm_select(name.encode()))


def region_attention(
    q: Tensor, k: Tensor, v: Tensor, regions: Regions, scale: float, dropout: float, seed: Tensor | None
) -> tuple[Tensor, Tensor]:
    """See `ops.region_attention`."""
    if dropout:
        return reference.region_attention(q, k, v, regions, scale, dropout, seed)
    call = _call(q, k, v, scale)
    out = _output(call, "out", q), _output(call, "lse", q[:, :, 0])
    _region("region_attention", call, k, regions)
    return out


def region_attention_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, regions: Regions, scale: float,
    dropout: float, seed: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    if dropout:
        return reference.region_attention_backward(grad, q, k, v, out, lse, regions, scale, dropout, seed)
    call = _call(q, k, v, scale, grad)
    grads = _output(call, "dq", q), _output(call, "dk", k), _output(call, "dv", v)
    _region("region_attention_backward", call, k, regions)
    return grads


def varlen_attention(
    q: Tensor, k: Tensor, v: Tensor, cu_q: Tensor, cu_k: Tensor, scale: float, dropout: float,
    seed: Tensor | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """See `ops.varlen_attention`."""
    if dropout:
        return reference.varlen_attention(q, k, v, cu_q, cu_k, scale, dropout, seed)
    call = _call(q, k, v, scale)
    out = _output(call, "out", q), _output(call, "lse", q[:, :, 0])
    _varlen("varlen_attention", call, cu_q, cu_k)
    return out


def varlen_attention_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, cu_q: Tensor, cu_k: Tensor,
    scale: float, dropout: float, seed: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    if dropout:
        return reference.varlen_attention_backward(grad, q, k, v, out, lse, cu_q, cu_k, scale, dropout, seed)
    call = _call(q, k, v, scale, grad)
    grads = _output(call, "dq", q), _output(call, "dk", k), _output(call, "dv", v)
    _varlen("varlen_attention_backward", call, cu_q, cu_k)
    return grads


class _Prepared:
    """A `_Call` and the tensors it points at, which must outlive it."""

    def __init__(self) -> None:
        self.struct = _Call()
        self.alive: list[Tensor] = []

    def point(self, name: str, x: Tensor) -> None:
        setattr(self.struct, name, x.data_ptr())
        self.alive.append(x)


def _call(q: Tensor, k: Tensor, v: Tensor, scale: float, grad: Tensor | None = None) -> _Prepared:
    """Inputs of a call. Rows may lie apart (a slice of a joint projection); other layouts are copied."""
    inputs = {"q": q, "k": k, "v": v} | ({"grad": grad} if grad is not None else {})
    if any(x.dtype != q.dtype or x.device.type != "cpu" for x in inputs.values()) or q.dtype not in DTYPES:
        found = ", ".join(f"{name} {x.dtype} on {x.device}" for name, x in inputs.items())
        raise ValueError(f"{found}: expected CPU tensors of one dtype, float32 or float64")
    call = _Prepared()
    for name, x in inputs.items():
        rows, row_stride, head_stride = _with_uniform_rows(x)
        call.point(name, rows)
        setattr(call.struct, f"{name}_row", row_stride)
        setattr(call.struct, f"{name}_head", head_stride)
    call.struct.queries, call.struct.heads, call.struct.width = q.shape
    call.struct.keys = k.shape[:-2].numel()
    call.struct.scale = scale
    call.struct.is_double = q.dtype == torch.float64
    call.struct.backward = grad is not None
    call.struct.threads = torch.get_num_threads()
    return call


def _with_uniform_rows(x: Tensor) -> tuple[Tensor, int, int]:
    """`x` (..., H, D) and its row and head strides; a copy unless its rows are evenly apart and D is dense."""
    one_run = x.dim() == 3 or x.stride(0) == x.shape[1] * x.stride(1)
    if x.stride(-1) == 1 and one_run and not x.is_contiguous():
        return x, x.stride(-3), x.stride(-2)
    return x.contiguous(), x.shape[-2] * x.shape[-1], x.shape[-1]  # a dimension of size 1 has any stride


def _output(call: _Prepared, name: str, like: Tensor) -> Tensor:
    out = torch.empty_like(like, memory_format=torch.contiguous_format)
    call.point(name, out)
    return out


def _region(op: str, call: _Prepared, k: Tensor, regions: Regions) -> None:
    index = {
        "offsets": _int32(regions.offsets),
        "image": _int32(regions.image),
        "box": _int32(regions.box),
        "prefix": regions.prefix.bool().contiguous(),
        "mean": regions.mean.bool().contiguous(),
    }
    groups = _Groups(*(x.data_ptr() for x in index.values()), len(regions.image), *k.shape[:2], *regions.grid)
    _raise(op, _library().relvlm_region_attention(ctypes.byref(call.struct), ctypes.byref(groups)))


def _varlen(op: str, call: _Prepared, cu_q: Tensor, cu_k: Tensor) -> None:
    if len(cu_q) != len(cu_k):
        raise ValueError(f"{op}: {len(cu_q)} offsets of queries, {len(cu_k)} of keys")
    cu_q, cu_k = _int32(cu_q), _int32(cu_k)
    pointers = (ctypes.c_void_p(cu.data_ptr()) for cu in (cu_q, cu_k))
    _raise(op, _library().relvlm_varlen_attention(ctypes.byref(call.struct), *pointers, len(cu_q) - 1))


def _int32(x: Tensor) -> Tensor:
    return x.to(torch.int32).contiguous()


def _raise(op: str, status: int) -> None:
    if status == _NO_MEMORY:
        raise MemoryError(f"{op}: no memory for the packed keys of one image or sequence")
    if status:
        raise ValueError(f"{op}: {_ERRORS[status]}")
