"""The attention ops for keys and values, or all three, in one tensor: so is their gradient.

What one projection gives is `kv.view(B, S, 2, H, D)`. Cut in two for `region_attention`, its gradient would come in
two parts, which autograd copies into a third. Options are those of the ops without a suffix.
"""

from __future__ import annotations

from torch import Tensor
from torch.library import custom_op

from relvlm_kernels.ops import (
    _autocast,
    _check_regions,
    _contiguous,
    _empty,
    _empty_lse,
    _run,
    _scale,
    _seed,
)
from relvlm_kernels.regions import Regions


def region_attention_kvpacked(
    q: Tensor, kv: Tensor, regions: Regions, scale: float | None = None, dropout: float = 0.0,
    seed: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """`region_attention` with kv (B, P + N, 2, H, D): keys, then values of each token."""
    _check_packed(kv, 5, 2, "region_attention_kvpacked: kv", "(B, S, 2, H, D)")
    _check_regions(q, kv[:, :, 0], kv[:, :, 1], regions)
    q, kv = _autocast(q, kv)
    return _region_attention_kvpacked(
        q, kv, regions.offsets, regions.image, regions.box, regions.prefix, regions.mean, *regions.grid,
        _scale(scale, q), dropout, _seed(seed, dropout, q),
    )[0]  # fmt: skip


def varlen_attention_kvpacked(
    q: Tensor, kv: Tensor, cu_q: Tensor, cu_k: Tensor, scale: float | None = None, dropout: float = 0.0,
    seed: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """`varlen_attention` with kv (Tk, 2, H, D)."""
    _check_packed(kv, 4, 2, "varlen_attention_kvpacked: kv", "(T, 2, H, D)")
    q, kv = _autocast(q, kv)
    seed = _seed(seed, dropout, q)
    return _varlen_attention_kvpacked(q, kv, cu_q, cu_k, _scale(scale, q), dropout, seed)[0]


def varlen_attention_qkvpacked(
    qkv: Tensor, cu: Tensor, scale: float | None = None, dropout: float = 0.0, seed: Tensor | None = None
) -> Tensor:
    """`varlen_attention` of each sequence to itself, with qkv (T, 3, H, D). Returns (T, H, D)."""
    _check_packed(qkv, 4, 3, "varlen_attention_qkvpacked: qkv", "(T, 3, H, D)")
    (qkv,) = _autocast(qkv)
    seed = _seed(seed, dropout, qkv)
    return _varlen_attention_qkvpacked(qkv, cu, _scale(scale, qkv), dropout, seed)[0]


def _check_packed(x: Tensor, dims: int, parts: int, what: str, shape: str) -> None:
    if x.dim() != dims or x.shape[-3] != parts:
        raise ValueError(f"{what} {tuple(x.shape)}: expected {shape}")


@custom_op("relvlm::region_attention_kvpacked", mutates_args=())
def _region_attention_kvpacked(
    q: Tensor, kv: Tensor, offsets: Tensor, image: Tensor, box: Tensor, prefix: Tensor, mean: Tensor, rows: int,
    columns: int, scale: float, dropout: float, seed: Tensor | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    regions = Regions(offsets, image, box, prefix, mean, (rows, columns))
    return _contiguous(_run("region_attention", q, q, *kv.unbind(-3), regions, scale, dropout, seed))


@custom_op("relvlm::region_attention_kvpacked_backward", mutates_args=())
def _region_attention_kvpacked_backward(
    grad: Tensor, q: Tensor, kv: Tensor, out: Tensor, lse: Tensor, offsets: Tensor, image: Tensor, box: Tensor,
    prefix: Tensor, mean: Tensor, seed: Tensor | None, rows: int, columns: int, scale: float, dropout: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    regions = Regions(offsets, image, box, prefix, mean, (rows, columns))
    dq, dkv = _empty(q), _empty(kv)
    args = grad, q, *kv.unbind(-3), out, lse, regions, scale, dropout, seed
    _run("region_attention_backward", q, *args, (dq, *dkv.unbind(-3)))
    return dq, dkv


@custom_op("relvlm::varlen_attention_kvpacked", mutates_args=())
def _varlen_attention_kvpacked(
    q: Tensor, kv: Tensor, cu_q: Tensor, cu_k: Tensor, scale: float, dropout: float, seed: Tensor | None
) -> tuple[Tensor, Tensor]:
    return _contiguous(_run("varlen_attention", q, q, *kv.unbind(-3), cu_q, cu_k, scale, dropout, seed))


@custom_op("relvlm::varlen_attention_kvpacked_backward", mutates_args=())
def _varlen_attention_kvpacked_backward(
    grad: Tensor, q: Tensor, kv: Tensor, out: Tensor, lse: Tensor, cu_q: Tensor, cu_k: Tensor,
    seed: Tensor | None, scale: float, dropout: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    dq, dkv = _empty(q), _empty(kv)
    args = grad, q, *kv.unbind(-3), out, lse, cu_q, cu_k, scale, dropout, seed
    _run("varlen_attention_backward", q, *args, (dq, *dkv.unbind(-3)))
    return dq, dkv


@custom_op("relvlm::varlen_attention_qkvpacked", mutates_args=())
def _varlen_attention_qkvpacked(
    qkv: Tensor, cu: Tensor, scale: float, dropout: float, seed: Tensor | None
) -> tuple[Tensor, Tensor]:
    return _contiguous(_run("varlen_attention", qkv, *qkv.unbind(-3), cu, cu, scale, dropout, seed))


@custom_op("relvlm::varlen_attention_qkvpacked_backward", mutates_args=())
def _varlen_attention_qkvpacked_backward(
    grad: Tensor, qkv: Tensor, out: Tensor, lse: Tensor, cu: Tensor, seed: Tensor | None, scale: float,
    dropout: float,
) -> Tensor:  # fmt: skip
    dqkv = _empty(qkv)
    args = grad, *qkv.unbind(-3), out, lse, cu, cu, scale, dropout, seed
    _run("varlen_attention_backward", qkv, *args, dqkv.unbind(-3))
    return dqkv


@_region_attention_kvpacked.register_fake
@_varlen_attention_kvpacked.register_fake
def _(q, *rest):
    return _empty(q), _empty_lse(q)


@_varlen_attention_qkvpacked.register_fake
def _(qkv, *rest):
    q = qkv.select(-3, 0)
    return _empty(q), _empty_lse(q)


@_region_attention_kvpacked_backward.register_fake
@_varlen_attention_kvpacked_backward.register_fake
def _(grad, q, kv, *rest):
    return _empty(q), _empty(kv)


@_varlen_attention_qkvpacked_backward.register_fake
def _(grad, qkv, *rest):
    return _empty(qkv)


def _save_region_kvpacked(ctx, inputs, output):
    q, kv, *index, ctx.rows, ctx.columns, ctx.scale, ctx.dropout, seed = inputs
    ctx.save_for_backward(q, kv, *output, *index, seed)
    ctx.mark_non_differentiable(output[1])


def _region_kvpacked_vjp(ctx, grad, _):
    args = *ctx.saved_tensors, ctx.rows, ctx.columns, ctx.scale, ctx.dropout
    return *_region_attention_kvpacked_backward(grad, *args), *[None] * 10


def _save_varlen_kvpacked(ctx, inputs, output):
    q, kv, cu_q, cu_k, ctx.scale, ctx.dropout, seed = inputs
    ctx.save_for_backward(q, kv, *output, cu_q, cu_k, seed)
    ctx.mark_non_differentiable(output[1])


def _save_varlen_qkvpacked(ctx, inputs, output):
    qkv, cu, ctx.scale, ctx.dropout, seed = inputs
    ctx.save_for_backward(qkv, *output, cu, seed)
    ctx.mark_non_differentiable(output[1])


def _varlen_kvpacked_vjp(ctx, grad, _):
    grads = _varlen_attention_kvpacked_backward(grad, *ctx.saved_tensors, ctx.scale, ctx.dropout)
    return *grads, *[None] * 5


def _varlen_qkvpacked_vjp(ctx, grad, _):
    grads = _varlen_attention_qkvpacked_backward(grad, *ctx.saved_tensors, ctx.scale, ctx.dropout)
    return grads, *[None] * 4


_region_attention_kvpacked.register_autograd(_region_kvpacked_vjp, setup_context=_save_region_kvpacked)
_varlen_attention_kvpacked.register_autograd(_varlen_kvpacked_vjp, setup_context=_save_varlen_kvpacked)
_varlen_attention_qkvpacked.register_autograd(_varlen_qkvpacked_vjp, setup_context=_save_varlen_qkvpacked)
