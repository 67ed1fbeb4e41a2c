"""`region_attention` and `varlen_attention` of the `cuda` backend, and their gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from relvlm_kernels.cuda import library
from relvlm_kernels.cuda.library import ALIGNMENT, Call, Launch, dense
from relvlm_kernels.cuda.plan import Planned, Sequences, plan_of
from relvlm_kernels.dropout import threshold
from relvlm_kernels.reference.attention import Gradients
from relvlm_kernels.regions import Regions

STATE = 4  # words of `RowState` of csrc/cuda/call.h


def region_attention(
    q: Tensor, k: Tensor, v: Tensor, regions: Regions, scale: float, dropout: float, seed: Tensor | None
) -> tuple[Tensor, Tensor]:
    """See `ops.region_attention` and, for lse, `reference`."""
    return _forward(q, k, v, regions, scale, dropout, seed)


def region_attention_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, regions: Regions, scale: float,
    dropout: float, seed: Tensor | None, to: Gradients | None = None,
) -> Gradients:  # fmt: skip
    return _backward(grad, q, k, v, out, lse, regions, scale, dropout, seed, to)


def varlen_attention(
    q: Tensor, k: Tensor, v: Tensor, cu_q: Tensor, cu_k: Tensor, scale: float, dropout: float,
    seed: Tensor | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """See `ops.varlen_attention`."""
    return _forward(q, k, v, (cu_q, cu_k), scale, dropout, seed)


def varlen_attention_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, cu_q: Tensor, cu_k: Tensor,
    scale: float, dropout: float, seed: Tensor | None, to: Gradients | None = None,
) -> Gradients:  # fmt: skip
    return _backward(grad, q, k, v, out, lse, (cu_q, cu_k), scale, dropout, seed, to)


def _forward(
    q: Tensor, k: Tensor, v: Tensor, index: Sequences | Regions, scale: float, dropout: float, seed: Tensor | None
) -> tuple[Tensor, Tensor]:
    width = q.shape[2]
    q, k, v = _padded(q, k, v)
    call, planned = _call(q, k, v, index, scale, dropout, seed, 0)
    out, lse = _output(q), q.new_empty(q.shape[:2], dtype=torch.float32)
    call.struct.out, call.struct.lse = out.data_ptr(), lse.data_ptr()
    if planned.items:
        planned.run(call)
    else:
        out.zero_()
        lse.fill_(-torch.inf)
    return out if width == out.shape[2] else out[..., :width], lse


def _backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, index: Sequences | Regions, scale: float,
    dropout: float, seed: Tensor | None, to: Gradients | None,
) -> Gradients:  # fmt: skip
    width = q.shape[2]
    grad, q, k, v, out = _padded(grad, q, k, v, out)
    call, planned = _call(q, k, v, index, scale, dropout, seed, int(to is not None))
    struct = call.struct
    grad, struct.grad_row, struct.grad_head = _dense_rows(grad)
    out, lse, states = out.contiguous(), lse.contiguous(), lse.new_empty(lse.numel(), STATE)
    struct.grad, struct.saved, struct.lse, struct.states = (
        grad.data_ptr(), out.data_ptr(), lse.data_ptr(), states.data_ptr()
    )  # fmt: skip
    dq, dk, dv = _padded(*to) if to else (_output(q), _output(k), _output(v))
    dq, struct.dq_row, struct.dq_head = _dense_rows(dq)
    dk, struct.dk_row, struct.dk_head = _dense_rows(dk)
    dv, struct.dv_row, struct.dv_head = _dense_rows(dv)
    struct.dq, struct.dk, struct.dv, struct.backward = dq.data_ptr(), dk.data_ptr(), dv.data_ptr(), 1
    call.alive += grad, out, lse, states
    if planned.items:
        planned.run(call)
    else:
        for x in (dq, dk, dv):
            x.zero_()
    return _written((dq, dk, dv), width, to)


def _written(grads: Gradients, width: int, to: Gradients | None) -> Gradients:
    """Gradients of heads of that width, in the tensors that were given."""
    found = grads if width == grads[0].shape[-1] else tuple([x[..., :width] for x in grads])
    for a, b in zip(found, to or (), strict=bool(to)):
        if a is not b and a.data_ptr() != b.data_ptr():  # padded, or laid out in a way that no kernel writes
            b.copy_(a)
    return to or found


def _padded(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Heads as wide as the next kernel's: zeros change neither scores nor the outputs that are kept."""
    width = tensors[0].shape[-1]
    wanted = library.padded_width(width)
    if wanted is None:
        raise ValueError(f"heads of {width}: the cuda kernels go up to {library.WIDTHS[-1]}")
    if wanted == width:
        return tensors
    return tuple(torch.nn.functional.pad(x, (0, wanted - width)) for x in tensors)


def _call(
    q: Tensor, k: Tensor, v: Tensor, index: Sequences | Regions, scale: float, dropout: float, seed: Tensor | None,
    partial: int,
) -> tuple[Launch, Planned]:  # fmt: skip
    (q, q_row, q_head), (k, k_row, k_head), (v, v_row, v_head) = _dense_rows(q), _dense_rows(k), _dense_rows(v)
    queries, heads, width = q.shape
    planned = plan_of(index, q, k, partial)
    struct = Call(
        q=q.data_ptr(), k=k.data_ptr(), v=v.data_ptr(), q_row=q_row, q_head=q_head, k_row=k_row, k_head=k_head,
        v_row=v_row, v_head=v_head, queries=queries, keys=k.shape[:-2].numel(), heads=heads, width=width,
        scale=scale, dropout=dropout, kept=1 / (1 - dropout), threshold=threshold(dropout), partial=partial,
        seed=seed.data_ptr() if dropout and seed is not None else None, plan=planned.plan, index=planned.index,
        items=planned.items,
    )  # fmt: skip
    return Launch(struct, q, k, v), planned


def _dense_rows(x: Tensor) -> tuple[Tensor, int, int]:
    """`x` (..., H, D) with the strides of rows and heads. Rows may lie apart (a slice of a joint projection); other
    layouts are copied."""
    strides, bytes_each = x.stride(), x.dtype.itemsize
    row, head = strides[-3:-1]
    one_run = strides[-1] == 1 and (x.ndim == 3 or strides[0] == x.shape[1] * row)
    if one_run and not (x.data_ptr() % ALIGNMENT or row * bytes_each % ALIGNMENT or head * bytes_each % ALIGNMENT):
        return x, row, head
    x = dense(x)
    return x, x.shape[-2] * x.shape[-1], x.shape[-1]


def _output(like: Tensor) -> Tensor:
    return torch.empty_like(like, memory_format=torch.contiguous_format)
