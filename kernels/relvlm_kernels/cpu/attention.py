"""`region_attention` and `varlen_attention` of the `cpu` backend, and their gradients."""

from __future__ import annotations

from ctypes import c_void_p

import torch
from torch import Tensor

from relvlm_kernels.cpu import library
from relvlm_kernels.cpu.library import DTYPES, Call, Groups, int32
from relvlm_kernels.dropout import threshold
from relvlm_kernels.eager import Gradients
from relvlm_kernels.native import Filled
from relvlm_kernels.regions import Regions


def region_attention(
    q: Tensor, k: Tensor, v: Tensor, regions: Regions, scale: float, dropout: float, seed: Tensor | None
) -> tuple[Tensor, Tensor]:
    """See `ops.region_attention`."""
    call, outputs = forward_call(q, k, v, scale, dropout, seed)
    _region("region_attention", call, k, regions)
    return outputs


def region_attention_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, regions: Regions, scale: float,
    dropout: float, seed: Tensor | None, to: Gradients | None = None,
) -> Gradients:  # fmt: skip
    call, grads = backward_call(grad, q, k, v, out, lse, scale, dropout, seed, to)
    _region("region_attention_backward", call, k, regions)
    return grads


def varlen_attention(
    q: Tensor, k: Tensor, v: Tensor, cu_q: Tensor, cu_k: Tensor, scale: float, dropout: float,
    seed: Tensor | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """See `ops.varlen_attention`."""
    call, outputs = forward_call(q, k, v, scale, dropout, seed)
    run_varlen("varlen_attention", call, cu_q, cu_k)
    return outputs


def varlen_attention_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, cu_q: Tensor, cu_k: Tensor,
    scale: float, dropout: float, seed: Tensor | None, to: Gradients | None = None,
) -> Gradients:  # fmt: skip
    call, grads = backward_call(grad, q, k, v, out, lse, scale, dropout, seed, to)
    run_varlen("varlen_attention_backward", call, cu_q, cu_k)
    return grads


def forward_call(
    q: Tensor, k: Tensor, v: Tensor, scale: float, dropout: float, seed: Tensor | None
) -> tuple[Filled, tuple[Tensor, Tensor]]:
    """A call of the forward, and what it writes: output and log-sum-exps."""
    call = _call({"q": q, "k": k, "v": v}, scale, dropout, seed)
    lse = _output(q[..., 0], torch.float64 if q.dtype == torch.float64 else torch.float32)
    out = _output(q)
    call.point(out=out, lse=lse)
    return call, (out, lse)


def backward_call(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, scale: float, dropout: float,
    seed: Tensor | None, to: Gradients | None,
) -> tuple[Filled, Gradients]:  # fmt: skip
    """A call of the backward, and what it writes: the gradients of q, k and v."""
    call = _call({"q": q, "k": k, "v": v, "grad": grad}, scale, dropout, seed)
    call.point(out=out.contiguous(), lse=lse.contiguous())
    call.set(backward=True)
    grads = to or (_output(q), _output(k), _output(v))
    for name, x in zip(("dq", "dk", "dv"), grads, strict=True):
        _point_at_rows(call, name, x)
    return call, grads


def _call(inputs: dict[str, Tensor], scale: float, dropout: float, seed: Tensor | None) -> Filled:
    """Inputs of a call. Rows may lie apart (a slice of a joint projection); other layouts are copied."""
    q, k = inputs["q"], inputs["k"]
    call = Filled(Call())
    for name, x in inputs.items():
        _point_at_rows(call, name, x if _strides(x) else x.contiguous())
    queries, heads, width = q.shape
    call.set(queries=queries, keys=k.shape[:-2].numel(), heads=heads, width=width, scale=scale)
    call.set(type=DTYPES[q.dtype], threads=torch.get_num_threads())
    if dropout and seed is not None:
        call.set(drop_below=threshold(dropout), keep_scale=1 / (1 - dropout), seed=seed.item() % 2**64)
    return call


def _point_at_rows(call: Filled, name: str, x: Tensor) -> None:
    """Raises ValueError where its rows (..., H, D) are not evenly apart or D is not dense."""
    strides = _strides(x)
    if strides is None:
        raise ValueError(f"{name} {tuple(x.shape)}: no kernel for strides {x.stride()}")
    call.point(**{name: x})
    call.set(**{f"{name}_row": strides[0], f"{name}_head": strides[1]})


def _strides(x: Tensor) -> tuple[int, int] | None:
    """Row and head strides of `x` (..., H, D); None unless its rows are evenly apart and D is dense."""
    if x.is_contiguous():
        return x.shape[-2] * x.shape[-1], x.shape[-1]  # a dimension of size 1 has any stride
    one_run = x.dim() == 3 or x.stride(0) == x.shape[1] * x.stride(1)
    return (x.stride(-3), x.stride(-2)) if x.stride(-1) == 1 and one_run else None


def _output(like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    return torch.empty_like(like, dtype=dtype, memory_format=torch.contiguous_format)


def _region(op: str, call: Filled, k: Tensor, regions: Regions) -> None:
    groups = Filled(Groups())
    groups.point(**{name: int32(getattr(regions, name)) for name in ("offsets", "image", "box")})
    groups.point(**{name: getattr(regions, name).contiguous() for name in ("prefix", "mean")})
    groups.set(count=len(regions.image), images=k.shape[0], tokens=k.shape[1])
    groups.set(grid_rows=regions.grid[0], grid_columns=regions.grid[1], partial=call.struct.backward)
    library.run(op, "region_attention", call.struct, groups.struct)


def run_varlen(op: str, call: Filled, cu_q: Tensor, cu_k: Tensor) -> None:
    """Runs a call whose sequences lie between these offsets."""
    cu_q, cu_k = int32(cu_q), int32(cu_k)
    pointers = (c_void_p(cu.data_ptr()) for cu in (cu_q, cu_k))
    library.run(op, "varlen_attention", call.struct, *pointers, len(cu_q) - 1)
