"""The `cpu` backend: the attention ops in C++ (csrc/cpu), loaded with ctypes from `_cpu.so` beside this file.

Same signatures as in `reference`; `mrc_pool` is that of `reference`. Index tensors are checked in C++,
and what is wrong with them is a ValueError. Runs on `torch.get_num_threads()` threads where OpenMP was there at
build time; results do not depend on their number. The widest instructions that the processor has are taken unless
RELVLM_CPU_ISA, read once, names others: avx512, avx2 or baseline.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from relvlm_kernels.dropout import threshold
from relvlm_kernels.reference import Gradients, mrc_pool, mrc_pool_backward
from relvlm_kernels.regions import Regions

__all__ = [
    "box_mean", "box_mean_backward", "mrc_pool", "mrc_pool_backward", "region_attention",
    "region_attention_backward", "varlen_attention", "varlen_attention_backward",
]  # fmt: skip

DTYPES = {
    torch.float32: 0,
    torch.float64: 1,
    torch.bfloat16: 2,
    torch.float16: 3,
}  # `Type` of csrc/cpu/attention.h
LIBRARY = Path(__file__).with_name("_cpu.so")
BUILD_RECORD = Path(__file__).with_name("_cpu.txt")  # by setup.py: how it was built, or why not
REINSTALL = "run pip install again in the source tree"


_STRIDED = ("q", "k", "v", "grad", "dq", "dk", "dv")


class _Call(ctypes.Structure):
    """Mirrors `Call` of csrc/cpu/attention.h."""

    _fields_ = (
        [(name, ctypes.c_void_p) for name in ("q", "k", "v", "grad", "out", "lse", "dq", "dk", "dv")]
        + [(f"{name}_{stride}", ctypes.c_int64) for name in _STRIDED for stride in ("row", "head")]
        + [(name, ctypes.c_int64) for name in ("queries", "keys", "heads", "width")]
        + [("scale", ctypes.c_double), ("keep_scale", ctypes.c_double)]
        + [("seed", ctypes.c_uint64), ("drop_below", ctypes.c_uint32)]
        + [(name, ctypes.c_int32) for name in ("type", "backward", "threads")]
    )


class _Groups(ctypes.Structure):
    """Mirrors `Groups` of csrc/cpu/plan.h."""

    _fields_ = (
        [(name, ctypes.c_void_p) for name in ("offsets", "image", "box", "prefix", "mean")]
        + [(name, ctypes.c_int32) for name in ("count", "images", "tokens", "grid_rows", "grid_columns")]
        + [("partial", ctypes.c_int32)]
    )


class _BoxMean(ctypes.Structure):
    """Mirrors `BoxMean` of csrc/cpu/attention.h."""

    _fields_ = (
        [(name, ctypes.c_void_p) for name in ("source", "to", "box", "image")]
        + [(name, ctypes.c_int64) for name in ("source_image", "source_row", "width")]
        + [(name, ctypes.c_int32) for name in ("groups", "images", "tokens", "grid_rows", "grid_columns")]
        + [(name, ctypes.c_int32) for name in ("type", "backward", "threads")]
    )


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
    """The compiled kernels; raises OSError saying why there are none, RuntimeError where RELVLM_CPU_ISA cannot run."""
    if not LIBRARY.exists():
        record = BUILD_RECORD.read_text() if BUILD_RECORD.exists() else f"not built ({REINSTALL})"
        raise OSError(f"{LIBRARY.name}: {record.strip()}")
    library = ctypes.CDLL(str(LIBRARY))
    library.relvlm_instructions.restype = ctypes.c_char_p
    if library.relvlm_call_bytes() != sum(map(ctypes.sizeof, (_Call, _Groups, _BoxMean))):
        raise OSError(f"{LIBRARY}: built from other sources than this Python code ({REINSTALL})")
    asked = os.environ.get("RELVLM_CPU_ISA")
    if asked and not library.relvlm_select(asked.encode()):
        raise RuntimeError(f"RELVLM_CPU_ISA={asked}: not compiled, or not of this processor")
    return library


def description() -> str:
    """Instruction set and threading of the loaded kernels."""
    threads = "OpenMP" if _library().relvlm_openmp() else "built without OpenMP: one thread"
    asked = " (RELVLM_CPU_ISA)" if os.environ.get("RELVLM_CPU_ISA") else ""
    return f"{instructions()}{asked}, {threads}"


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
    call, outputs = _forward_call(q, k, v, scale, dropout, seed)
    _region("region_attention", call, k, regions)
    return outputs


def region_attention_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, regions: Regions, scale: float,
    dropout: float, seed: Tensor | None, to: Gradients | None = None,
) -> Gradients:  # fmt: skip
    call, grads = _backward_call(grad, q, k, v, out, lse, scale, dropout, seed, to)
    _region("region_attention_backward", call, k, regions)
    return grads


def varlen_attention(
    q: Tensor, k: Tensor, v: Tensor, cu_q: Tensor, cu_k: Tensor, scale: float, dropout: float,
    seed: Tensor | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """See `ops.varlen_attention`."""
    call, outputs = _forward_call(q, k, v, scale, dropout, seed)
    _varlen("varlen_attention", call, cu_q, cu_k)
    return outputs


def varlen_attention_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, cu_q: Tensor, cu_k: Tensor,
    scale: float, dropout: float, seed: Tensor | None, to: Gradients | None = None,
) -> Gradients:  # fmt: skip
    call, grads = _backward_call(grad, q, k, v, out, lse, scale, dropout, seed, to)
    _varlen("varlen_attention_backward", call, cu_q, cu_k)
    return grads


def box_mean(x: Tensor, box: Tensor, image: Tensor, grid: tuple[int, int]) -> Tensor:
    """See `ops.box_mean`."""
    out = torch.empty(len(box), x.shape[2], dtype=x.dtype)
    x = x if x.stride(2) == 1 else x.contiguous()
    _boxes(x, x.stride()[:2], out, x, box, image, grid, backward=False)
    return out


def box_mean_backward(grad: Tensor, x: Tensor, box: Tensor, image: Tensor, grid: tuple[int, int]) -> Tensor:
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    grad = grad.contiguous()
    _boxes(grad, (0, x.shape[2]), out, x, box, image, grid, backward=True)
    return out


def _boxes(
    source: Tensor, strides: tuple[int, ...], out: Tensor, x: Tensor, box: Tensor, image: Tensor,
    grid: tuple[int, int], backward: bool,
) -> None:  # fmt: skip
    box, image = _int32(box), _int32(image)
    call = _BoxMean(
        source.data_ptr(), out.data_ptr(), box.data_ptr(), image.data_ptr(), *strides, x.shape[2], len(box),
        *x.shape[:2], *grid, DTYPES[x.dtype], backward, torch.get_num_threads(),
    )  # fmt: skip
    _raise("box_mean", _library().relvlm_box_mean(ctypes.byref(call)))


class _Prepared:
    """A `_Call` and the tensors it points at, which must outlive it."""

    def __init__(self) -> None:
        self.struct = _Call()
        self.alive: list[Tensor] = []

    def point(self, name: str, x: Tensor) -> None:
        setattr(self.struct, name, x.data_ptr())
        self.alive.append(x)

    def point_at_rows(self, name: str, x: Tensor) -> None:
        """Raises ValueError where its rows (..., H, D) are not evenly apart or D is not dense."""
        strides = _strides(x)
        if strides is None:
            raise ValueError(f"{name} {tuple(x.shape)}: no kernel for strides {x.stride()}")
        self.point(name, x)
        for stride, value in zip(("row", "head"), strides, strict=True):
            setattr(self.struct, f"{name}_{stride}", value)


def _forward_call(
    q: Tensor, k: Tensor, v: Tensor, scale: float, dropout: float, seed: Tensor | None
) -> tuple[_Prepared, tuple[Tensor, Tensor]]:
    call = _call({"q": q, "k": k, "v": v}, scale, dropout, seed)
    lse = _output(q[..., 0], torch.float64 if q.dtype == torch.float64 else torch.float32)
    out = _output(q)
    call.point("out", out)
    call.point("lse", lse)
    return call, (out, lse)


def _backward_call(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, scale: float, dropout: float,
    seed: Tensor | None, to: Gradients | None,
) -> tuple[_Prepared, Gradients]:  # fmt: skip
    call = _call({"q": q, "k": k, "v": v, "grad": grad}, scale, dropout, seed)
    call.point("out", out.contiguous())
    call.point("lse", lse.contiguous())
    call.struct.backward = True
    grads = to or (_output(q), _output(k), _output(v))
    for name, x in zip(("dq", "dk", "dv"), grads, strict=True):
        call.point_at_rows(name, x)
    return call, grads


def _call(inputs: dict[str, Tensor], scale: float, dropout: float, seed: Tensor | None) -> _Prepared:
    """Inputs of a call. Rows may lie apart (a slice of a joint projection); other layouts are copied."""
    q, k = inputs["q"], inputs["k"]
    if any(x.dtype != q.dtype or x.device.type != "cpu" for x in inputs.values()) or q.dtype not in DTYPES:
        found = ", ".join(f"{name} {x.dtype} on {x.device}" for name, x in inputs.items())
        raise ValueError(f"{found}: expected CPU tensors of one dtype, of {', '.join(map(str, DTYPES))}")
    call = _Prepared()
    for name, x in inputs.items():
        call.point_at_rows(name, x if _strides(x) else x.contiguous())
    call.struct.queries, call.struct.heads, call.struct.width = q.shape
    call.struct.keys = k.shape[:-2].numel()
    call.struct.scale = scale
    call.struct.type = DTYPES[q.dtype]
    call.struct.threads = torch.get_num_threads()
    if dropout and seed is not None:
        call.struct.drop_below, call.struct.keep_scale = threshold(dropout), 1 / (1 - dropout)
        call.struct.seed = seed.item() % 2**64
    return call


def _strides(x: Tensor) -> tuple[int, int] | None:
    """Row and head strides of `x` (..., H, D); None unless its rows are evenly apart and D is dense."""
    if x.is_contiguous():
        return x.shape[-2] * x.shape[-1], x.shape[-1]  # a dimension of size 1 has any stride
    one_run = x.dim() == 3 or x.stride(0) == x.shape[1] * x.stride(1)
    return (x.stride(-3), x.stride(-2)) if x.stride(-1) == 1 and one_run else None


def _output(like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    return torch.empty_like(like, dtype=dtype, memory_format=torch.contiguous_format)


def _region(op: str, call: _Prepared, k: Tensor, regions: Regions) -> None:
    index = {
        "offsets": _int32(regions.offsets),
        "image": _int32(regions.image),
        "box": _int32(regions.box),
        "prefix": regions.prefix.bool().contiguous(),
        "mean": regions.mean.bool().contiguous(),
    }
    sizes = len(regions.image), *k.shape[:2], *regions.grid
    groups = _Groups(*(x.data_ptr() for x in index.values()), *sizes, call.struct.backward)
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
