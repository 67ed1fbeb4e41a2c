"""`varlen_attention` of keys and values, or all three, in one tensor: so is their gradient.

What one projection gives is `kv.view(T, 2, H, D)`. Cut in two for `varlen_attention`, its gradient would come in two
parts, which autograd copies into a third. Options are those of `varlen_attention`.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from relvlm_kernels import checks, signatures
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
from relvlm_kernels.registration import nothing, register


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
        return attention_by_pytorch(qkv, scale)
    cu = torch.arange(qkv.shape[0] + 1, dtype=torch.int32) * qkv.shape[1]
    return varlen_attention_qkvpacked(qkv.flatten(0, 1), cu, scale).unflatten(0, qkv.shape[:2])


def attention_by_pytorch(qkv: Tensor, scale: float | None = None) -> Tensor:
    """As `attention_qkvpacked`, by PyTorch's own kernel."""
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    return F.scaled_dot_product_attention(q, k, v, scale=scale).transpose(1, 2)


def _kvpacked_kernel(
    q: Tensor, kv: Tensor, cu_q: Tensor, cu_k: Tensor, scale: float, dropout: float, seed: Tensor | None
) -> tuple[Tensor, Tensor]:
    checks.once(signatures.check_varlen_attention_kvpacked, "varlen_attention_kvpacked", (q, kv, cu_q, cu_k))
    k, v = kv.unbind(1)
    return attend_sequences(q, k, v, cu_q, cu_k, scale, dropout, seed)


def _kvpacked_fake(q: Tensor, kv: Tensor, cu_q: Tensor, cu_k: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    signatures.check_varlen_attention_kvpacked("varlen_attention_kvpacked", q, kv, cu_q, cu_k)
    return empty(q), empty_lse(q)


def _kvpacked_backward_kernel(
    grad: Tensor, q: Tensor, kv: Tensor, out: Tensor, lse: Tensor, cu_q: Tensor, cu_k: Tensor, *options: Any
) -> tuple[Tensor, Tensor]:
    check = signatures.check_varlen_attention_kvpacked_backward
    checks.once(check, "varlen_attention_kvpacked_backward", (grad, q, kv, out, lse, cu_q, cu_k))
    dq, dkv = empty(q), empty(kv)
    args = grad, q, *kv.unbind(1), out, lse, cu_q, cu_k, *options
    run("varlen_attention_backward", q, *args, (dq, *dkv.unbind(1)))
    return dq, dkv


def _kvpacked_backward_fake(grad: Tensor, q: Tensor, kv: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return empty(q), empty(kv)


def _save_kvpacked(ctx: Any, inputs: Any, output: Any) -> None:
    q, kv, cu_q, cu_k, ctx.scale, ctx.dropout, seed = inputs
    ctx.save_for_backward(q, kv, *output, cu_q, cu_k, seed)
    ctx.mark_non_differentiable(output[1])


def _kvpacked_vjp(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    *tensors, seed = ctx.saved_tensors
    return *_varlen_attention_kvpacked_backward(grad, *tensors, ctx.scale, ctx.dropout, seed), *[None] * 5


_OPTIONS = "float scale, float dropout, Tensor? seed"
_varlen_attention_kvpacked = register(
    f"varlen_attention_kvpacked(Tensor q, Tensor kv, Tensor cu_q, Tensor cu_k, {_OPTIONS}) -> (Tensor, Tensor)",
    _kvpacked_kernel, _kvpacked_fake, _save_kvpacked, _kvpacked_vjp,
)  # fmt: skip
_varlen_attention_kvpacked_backward = register(
    "varlen_attention_kvpacked_backward(Tensor grad, Tensor q, Tensor kv, Tensor out, Tensor lse, Tensor cu_q, "
    f"Tensor cu_k, {_OPTIONS}) -> (Tensor, Tensor)",
    _kvpacked_backward_kernel, _kvpacked_backward_fake, nothing, no_second_derivative("varlen_attention_kvpacked"),
)  # fmt: skip


def _qkvpacked_kernel(
    qkv: Tensor, cu: Tensor, scale: float, dropout: float, seed: Tensor | None
) -> tuple[Tensor, Tensor]:
    checks.once(signatures.check_varlen_attention_qkvpacked, "varlen_attention_qkvpacked", (qkv, cu))
    q, k, v = qkv.unbind(1)
    return attend_sequences(q, k, v, cu, cu, scale, dropout, seed)


def _qkvpacked_fake(qkv: Tensor, cu: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    signatures.check_varlen_attention_qkvpacked("varlen_attention_qkvpacked", qkv, cu)
    q = qkv.select(1, 0)
    return empty(q), empty_lse(q)


def _qkvpacked_backward_kernel(
    grad: Tensor, qkv: Tensor, out: Tensor, lse: Tensor, cu: Tensor, *options: Any
) -> Tensor:
    check = signatures.check_varlen_attention_qkvpacked_backward
    checks.once(check, "varlen_attention_qkvpacked_backward", (grad, qkv, out, lse, cu))
    dqkv = empty(qkv)
    args = grad, *qkv.unbind(1), out, lse, cu, cu, *options
    run("varlen_attention_backward", qkv, *args, dqkv.unbind(1))
    return dqkv


def _qkvpacked_backward_fake(grad: Tensor, qkv: Tensor, *rest: Any) -> Tensor:
    return empty(qkv)


def _save_qkvpacked(ctx: Any, inputs: Any, output: Any) -> None:
    qkv, cu, ctx.scale, ctx.dropout, seed = inputs
    ctx.save_for_backward(qkv, *output, cu, seed)
    ctx.mark_non_differentiable(output[1])


def _qkvpacked_vjp(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    *tensors, seed = ctx.saved_tensors
    return _varlen_attention_qkvpacked_backward(grad, *tensors, ctx.scale, ctx.dropout, seed), *[None] * 4


_varlen_attention_qkvpacked = register(
    f"varlen_attention_qkvpacked(Tensor qkv, Tensor cu, {_OPTIONS}) -> (Tensor, Tensor)",
    _qkvpacked_kernel, _qkvpacked_fake, _save_qkvpacked, _qkvpacked_vjp,
)  # fmt: skip
_varlen_attention_qkvpacked_backward = register(
    f"varlen_attention_qkvpacked_backward(Tensor grad, Tensor qkv, Tensor out, Tensor lse, Tensor cu, {_OPTIONS}) "
    "-> Tensor",
    _qkvpacked_backward_kernel, _qkvpacked_backward_fake, nothing, no_second_derivative("varlen_attention_qkvpacked"),
)  # fmt: skip
