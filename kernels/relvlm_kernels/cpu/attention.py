"""`region_attention` and `varlen_attention` of the `cpu` backend, and their gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from relvlm_kernels.cpu import library
from relvlm_kernels.cpu.library import DTYPES, Call, Groups, int32
from relvlm_kernels.dropout import threshold
from relvlm_kernels.recent import Recent
from relvlm_kernels.reference.attention import Gradients
from relvlm_kernels.regions import Regions

Alive = tuple[Tensor, ...]  # what a structure points at, which must outlive the call
_groups: Recent[tuple[Groups, Alive]] = Recent()


def region_attention(
    q: Tensor, k: Tensor, v: Tensor, regions: Regions, scale: float, dropout: float, seed: Tensor | None
) -> tuple[Tensor, Tensor]:
    """See `ops.region_attention`."""
    call, outputs, _alive = forward_call(q, k, v, scale, dropout, seed)
    _region("region_attention", call, k, regions)
    return outputs


def region_attention_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, regions: Regions, scale: float,
    dropout: float, seed: Tensor | None, to: Gradients | None = None,
) -> Gradients:  # fmt: skip
    call, grads, _alive = backward_call(grad, q, k, v, out, lse, scale, dropout, seed, to)
    _region("region_attention_backward", call, k, regions)
    return grads


def varlen_attention(
    q: Tensor, k: Tensor, v: Tensor, cu_q: Tensor, cu_k: Tensor, scale: float, dropout: float,
    seed: Tensor | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """See `ops.varlen_attention`."""
    call, outputs, _alive = forward_call(q, k, v, scale, dropout, seed)
    run_varlen("varlen_attention", call, cu_q, cu_k)
    return outputs


def varlen_attention_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, cu_q: Tensor, cu_k: Tensor,
    scale: float, dropout: float, seed: Tensor | None, to: Gradients | None = None,
) -> Gradients:  # fmt: skip
    call, grads, _alive = backward_call(grad, q, k, v, out, lse, scale, dropout, seed, to)
    run_varlen("varlen_attention_backward", call, cu_q, cu_k)
    return grads


def forward_call(
    q: Tensor, k: Tensor, v: Tensor, scale: float, dropout: float, seed: Tensor | None
) -> tuple[Call, tuple[Tensor, Tensor], Alive]:
    """A call of the forward, what it writes (output and log-sum-exps), and what it points at."""
    call, alive = _call(q, k, v, scale, dropout, seed)
    out = _output(q)
    lse = torch.empty(q.shape[:-1], dtype=torch.float64 if q.dtype == torch.float64 else torch.float32)
    call.out, call.lse = out.data_ptr(), lse.data_ptr()
    return call, (out, lse), alive


def backward_call(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, scale: float, dropout: float,
    seed: Tensor | None, to: Gradients | None,
) -> tuple[Call, Gradients, Alive]:  # fmt: skip
    """A call of the backward, what it writes (the gradients of q, k and v), and what it points at."""
    call, alive = _call(q, k, v, scale, dropout, seed)
    grad, call.grad_row, call.grad_head = _dense_rows(grad)
    out, lse = out.contiguous(), lse.contiguous()
    call.grad, call.out, call.lse, call.backward = grad.data_ptr(), out.data_ptr(), lse.data_ptr(), 1
    dq, dk, dv = grads = to or (_output(q), _output(k), _output(v))
    call.dq, call.dk, call.dv = dq.data_ptr(), dk.data_ptr(), dv.data_ptr()
    call.dq_row, call.dq_head = _writable_rows("dq", dq)
    call.dk_row, call.dk_head = _writable_rows("dk", dk)
    call.dv_row, call.dv_head = _writable_rows("dv", dv)
    return call, grads, (*alive, grad, out, lse)


def _call(q: Tensor, k: Tensor, v: Tensor, scale: float, dropout: float, seed: Tensor | None) -> tuple[Call, Alive]:
    """Inputs of a call. Rows may lie apart (a slice of a joint projection); other layouts are copied."""
    (q, q_row, q_head), (k, k_row, k_head), (v, v_row, v_head) = _dense_rows(q), _dense_rows(k), _dense_rows(v)
    queries, heads, width = q.shape
    call = Call(
        q=q.data_ptr(), k=k.data_ptr(), v=v.data_ptr(), q_row=q_row, q_head=q_head, k_row=k_row, k_head=k_head,
        v_row=v_row, v_head=v_head, queries=queries, keys=k.shape[:-2].numel(), heads=heads, width=width, scale=scale,
        type=DTYPES[q.dtype], threads=torch.get_num_threads(),
    )  # fmt: skip
    if dropout and seed is not None:
        call.drop_below, call.keep_scale, call.seed = threshold(dropout), 1 / (1 - dropout), seed.item() % 2**64
    return call, (q, k, v)


def _dense_rows(x: Tensor) -> tuple[Tensor, int, int]:
    """`x` (..., H, D) or a copy whose rows are evenly apart and dense, and the strides of rows and heads."""
    strides = _strides(x)
    return (x, *strides) if strides else (x.contiguous(), x.shape[-2] * x.shape[-1], x.shape[-1])


def _writable_rows(name: str, x: Tensor) -> tuple[int, int]:
    """Strides of rows and heads; raises ValueError where they are not evenly apart or not dense."""
    strides = _strides(x)
    if strides is None:
        raise ValueError(f"{name} {tuple(x.shape)}: no kernel for strides {x.stride()}")
    return strides


def _strides(x: Tensor) -> tuple[int, int] | None:
    """Row and head strides of `x` (..., H, D); None unless its rows are evenly apart and D is dense."""
    strides = x.stride()
    if strides[-1] == 1 and (x.ndim == 3 or strides[0] == x.shape[1] * strides[1]):
        return strides[-3], strides[-2]
    return (x.shape[-2] * x.shape[-1], x.shape[-1]) if x.is_contiguous() else None  # a size of 1 has any stride


def _output(like: Tensor) -> Tensor:
    return torch.empty_like(like, memory_format=torch.contiguous_format)


def _region(op: str, call: Call, k: Tensor, regions: Regions) -> None:
    images, tokens = k.shape[:2]
    tensors = regions.offsets, regions.image, regions.box, regions.prefix, regions.mean
    key = images, tokens, regions.grid, call.backward
    if all(map(_read_in_place, tensors)):
        groups, _alive = _groups.get(key, tensors, _groups_of, regions, *key)
    else:  # a copy would keep what the tensor held, and compiled code does not say when it writes into one again
        groups, _alive = _groups_of(regions, *key)
    library.run(op, "region_attention", call, groups)


def _read_in_place(x: Tensor) -> bool:
    return x.dtype != torch.int64 and x.is_contiguous()


def _groups_of(
    regions: Regions, images: int, tokens: int, grid: tuple[int, int], backward: int
) -> tuple[Groups, Alive]:
    alive = (
        int32(regions.offsets), int32(regions.image), int32(regions.box), regions.prefix.contiguous(),
        regions.mean.contiguous(),
    )  # fmt: skip
    pointers = dict(zip(("offsets", "image", "box", "prefix", "mean"), map(Tensor.data_ptr, alive), strict=True))
    sizes = {"count": regions.image.shape[0], "images": images, "tokens": tokens}
    return Groups(**pointers, **sizes, grid_rows=grid[0], grid_columns=grid[1], partial=backward), alive


def run_varlen(op: str, call: Call, cu_q: Tensor, cu_k: Tensor) -> None:
    """Runs a call whose sequences lie between these offsets."""
    cu_q, cu_k = int32(cu_q), int32(cu_k)
    library.run(op, "varlen_attention", call, cu_q.data_ptr(), cu_k.data_ptr(), cu_q.shape[0] - 1)
