"""`varlen_attention` of keys and values, or all three, in one tensor: so is their gradient.

What one projection gives is `kv.view(T, 2, H, D)`. Cut in two for `varlen_attention`, its gradient would come in two
parts, which autograd copies into a third. Options are those of `varlen_attention`.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.library import custom_op

from relvlm_kernels.dispatch import (
    attend_sequences,
    autocast,
    default_scale,
    dropout_seed,
    empty,
    empty_lse,
    run,
)


def varlen_attention_kvpacked(
    q: Tensor, kv: Tensor, cu_q: Tensor, cu_k: Tensor, scale: float | None = None, dropout: float = 0.0,
    seed: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """`varlen_attention` with kv (Tk, 2, H, D)."""
    _check_packed(kv, 4, 2, "varlen_attention_kvpacked: kv", "(T, 2, H, D)")
    q, kv = autocast(q, kv)
    seed = dropout_seed(seed, dropout, q)
    return _varlen_attention_kvpacked(q, kv, cu_q, cu_k, default_scale(scale, q), dropout, seed)[0]


def varlen_attention_qkvpacked(
    qkv: Tensor, cu: Tensor, scale: float | None = None, dropout: float = 0.0, seed: Tensor | None = None
) -> Tensor:
    """`varlen_attention` of each sequence to itself, with qkv (T, 3, H, D). Returns (T, H, D)."""
    _check_packed(qkv, 4, 3, "varlen_attention_qkvpacked: qkv", "(T, 3, H, D)")
    (qkv,) = autocast(qkv)
    seed = dropout_seed(seed, dropout, qkv)
    return _varlen_attention_qkvpacked(qkv, cu, default_scale(scale, qkv), dropout, seed)[0]


def _check_packed(x: Tensor, dims: int, parts: int, what: str, shape: str) -> None:
    if x.dim() != dims or x.shape[-3] != parts:
        raise ValueError(f"{what} {tuple(x.shape)}: expected {shape}")


@custom_op("relvlm::varlen_attention_kvpacked", mutates_args=())
def _varlen_attention_kvpacked(
    q: Tensor, kv: Tensor, cu_q: Tensor, cu_k: Tensor, scale: float, dropout: float, seed: Tensor | None
) -> tuple[Tensor, Tensor]:
    k, v = kv.unbind(-3)
    return attend_sequences(q, k, v, cu_q, cu_k, scale, dropout, seed)


@custom_op("relvlm::varlen_attention_kvpacked_backward", mutates_args=())
def _varlen_attention_kvpacked_backward(
    grad: Tensor, q: Tensor, kv: Tensor, out: Tensor, lse: Tensor, cu_q: Tensor, cu_k: Tensor,
    seed: Tensor | None, scale: float, dropout: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    dq, dkv = empty(q), empty(kv)
    args = grad, q, *kv.unbind(-3), out, lse, cu_q, cu_k, scale, dropout, seed
    run("varlen_attention_backward", q, *args, (dq, *dkv.unbind(-3)))
    return dq, dkv


@custom_op("relvlm::varlen_attention_qkvpacked", mutates_args=())
def _varlen_attention_qkvpacked(
    qkv: Tensor, cu: Tensor, scale: float, dropout: float, seed: Tensor | None
) -> tuple[Tensor, Tensor]:
    q, k, v = qkv.unbind(-3)
    return attend_sequences(q, k, v, cu, cu, scale, dropout, seed)


@custom_op("relvlm::varlen_attention_qkvpacked_backward", mutates_args=())
def _varlen_attention_qkvpacked_backward(
    grad: Tensor, qkv: Tensor, out: Tensor, lse: Tensor, cu: Tensor, seed: Tensor | None, scale: float,
    dropout: float,
) -> Tensor:  # fmt: skip
    dqkv = empty(qkv)
    args = grad, *qkv.unbind(-3), out, lse, cu, cu, scale, dropout, seed
    run("varlen_attention_backward", qkv, *args, dqkv.unbind(-3))
    return dqkv


@_varlen_attention_kvpacked.register_fake
def _(q: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return empty(q), empty_lse(q)


@_varlen_attention_qkvpacked.register_fake
def _(qkv: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    q = qkv.select(-3, 0)
    return empty(q), empty_lse(q)


@_varlen_attention_kvpacked_backward.register_fake
def _(grad: Tensor, q: Tensor, kv: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return empty(q), empty(kv)


@_varlen_attention_qkvpacked_backward.register_fake
def _(grad: Tensor, qkv: Tensor, *rest: Any) -> Tensor:
    return empty(qkv)


def _save_varlen_kvpacked(ctx: Any, inputs: Any, output: Any) -> None:
    q, kv, cu_q, cu_k, ctx.scale, ctx.dropout, seed = inputs
    ctx.save_for_backward(q, kv, *output, cu_q, cu_k, seed)
    ctx.mark_non_differentiable(output[1])


def _save_varlen_qkvpacked(ctx: Any, inputs: Any, output: Any) -> None:
    qkv, cu, ctx.scale, ctx.dropout, seed = inputs
    ctx.save_for_backward(qkv, *output, cu, seed)
    ctx.mark_non_differentiable(output[1])


def _varlen_kvpacked_vjp(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    grads = _varlen_attention_kvpacked_backward(grad, *ctx.saved_tensors, ctx.scale, ctx.dropout)
    return *grads, *[None] * 5


def _varlen_qkvpacked_vjp(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    grads = _varlen_attention_qkvpacked_backward(grad, *ctx.saved_tensors, ctx.scale, ctx.dropout)
    return grads, *[None] * 4


_varlen_attention_kvpacked.register_autograd(_varlen_kvpacked_vjp, setup_context=_save_varlen_kvpacked)
_varlen_attention_qkvpacked.register_autograd(_varlen_qkvpacked_vjp, setup_context=_save_varlen_qkvpacked)
