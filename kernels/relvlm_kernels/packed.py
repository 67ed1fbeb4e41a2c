"""`varlen_attention` of keys and values, or all three, in one tensor: so is their gradient.

What one projection gives is `kv.view(T, 2, H, D)`. Cut in two for `varlen_attention`, its gradient would come in two
parts, which autograd copies into a third. Options are those of `varlen_attention`.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.library import custom_op

from relvlm_kernels import checks
from relvlm_kernels.derivatives import no_second_derivative
from relvlm_kernels.dispatch import (
    attend_sequences,
    default_scale,
    dropout_seed,
    empty,
    empty_lse,
    inputs,
    run,
)


def varlen_attention_kvpacked(
    q: Tensor, kv: Tensor, cu_q: Tensor, cu_k: Tensor, scale: float | None = None, dropout: float = 0.0,
    seed: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """`varlen_attention` with kv (Tk, 2, H, D)."""
    q, kv, cu_q, cu_k = inputs("varlen_attention_kvpacked", q=q, kv=kv, cu_q=cu_q, cu_k=cu_k)
    seed = dropout_seed(seed, dropout, q)
    return _varlen_attention_kvpacked(q, kv, cu_q, cu_k, default_scale(scale, q), dropout, seed)[0]


def varlen_attention_qkvpacked(
    qkv: Tensor, cu: Tensor, scale: float | None = None, dropout: float = 0.0, seed: Tensor | None = None
) -> Tensor:
    """`varlen_attention` of each sequence to itself, with qkv (T, 3, H, D). Returns (T, H, D)."""
    qkv, cu = inputs("varlen_attention_qkvpacked", qkv=qkv, cu=cu)
    seed = dropout_seed(seed, dropout, qkv)
    return _varlen_attention_qkvpacked(qkv, cu, default_scale(scale, qkv), dropout, seed)[0]


def attention_qkvpacked(qkv: Tensor, scale: float | None = None) -> Tensor:
    """Attention to itself of each of qkv (B, S, 3, H, D), which are all of one length. Returns (B, S, H, D).

    On a CPU `varlen_attention_qkvpacked`, elsewhere PyTorch's.
    """
    if qkv.device.type != "cpu":
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        return F.scaled_dot_product_attention(q, k, v, scale=scale).transpose(1, 2)
    cu = torch.arange(qkv.shape[0] + 1, dtype=torch.int32) * qkv.shape[1]
    return varlen_attention_qkvpacked(qkv.flatten(0, 1), cu, scale).unflatten(0, qkv.shape[:2])


@custom_op("relvlm::varlen_attention_kvpacked", mutates_args=())
def _varlen_attention_kvpacked(
    q: Tensor, kv: Tensor, cu_q: Tensor, cu_k: Tensor, scale: float, dropout: float, seed: Tensor | None
) -> tuple[Tensor, Tensor]:
    checks.check_varlen_attention_kvpacked("varlen_attention_kvpacked", q, kv, cu_q, cu_k)
    k, v = kv.unbind(-3)
    return attend_sequences(q, k, v, cu_q, cu_k, scale, dropout, seed)


@custom_op("relvlm::varlen_attention_kvpacked_backward", mutates_args=())
def _varlen_attention_kvpacked_backward(
    grad: Tensor, q: Tensor, kv: Tensor, out: Tensor, lse: Tensor, cu_q: Tensor, cu_k: Tensor,
    seed: Tensor | None, scale: float, dropout: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    arguments = checks.check_varlen_attention_kvpacked("varlen_attention_kvpacked_backward", q, kv, cu_q, cu_k)
    checks.check_saved(arguments, "Tq", grad, out, lse)
    dq, dkv = empty(q), empty(kv)
    args = grad, q, *kv.unbind(-3), out, lse, cu_q, cu_k, scale, dropout, seed
    run("varlen_attention_backward", q, *args, (dq, *dkv.unbind(-3)))
    return dq, dkv


@custom_op("relvlm::varlen_attention_qkvpacked", mutates_args=())
def _varlen_attention_qkvpacked(
    qkv: Tensor, cu: Tensor, scale: float, dropout: float, seed: Tensor | None
) -> tuple[Tensor, Tensor]:
    checks.check_varlen_attention_qkvpacked("varlen_attention_qkvpacked", qkv, cu)
    q, k, v = qkv.unbind(-3)
    return attend_sequences(q, k, v, cu, cu, scale, dropout, seed)


@custom_op("relvlm::varlen_attention_qkvpacked_backward", mutates_args=())
def _varlen_attention_qkvpacked_backward(
    grad: Tensor, qkv: Tensor, out: Tensor, lse: Tensor, cu: Tensor, seed: Tensor | None, scale: float,
    dropout: float,
) -> Tensor:  # fmt: skip
    arguments = checks.check_varlen_attention_qkvpacked("varlen_attention_qkvpacked_backward", qkv, cu)
    checks.check_saved(arguments, "T", grad, out, lse)
    dqkv = empty(qkv)
    args = grad, *qkv.unbind(-3), out, lse, cu, cu, scale, dropout, seed
    run("varlen_attention_backward", qkv, *args, dqkv.unbind(-3))
    return dqkv


@_varlen_attention_kvpacked.register_fake
def _(q: Tensor, kv: Tensor, cu_q: Tensor, cu_k: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    checks.check_varlen_attention_kvpacked("varlen_attention_kvpacked", q, kv, cu_q, cu_k)
    return empty(q), empty_lse(q)


@_varlen_attention_qkvpacked.register_fake
def _(qkv: Tensor, cu: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    checks.check_varlen_attention_qkvpacked("varlen_attention_qkvpacked", qkv, cu)
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
_varlen_attention_kvpacked_backward.register_autograd(no_second_derivative("varlen_attention_kvpacked"))
_varlen_attention_qkvpacked_backward.register_autograd(no_second_derivative("varlen_attention_qkvpacked"))
