"""Attention within windows of one length, with a bias of their scores: Swin's (Liu et al., 2021).

On a CPU no scores are kept: the backward computes them again.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from relvlm_kernels import checks, signatures
from relvlm_kernels.derivatives import no_second_derivative
from relvlm_kernels.dispatch import contiguous, default_scale, empty, empty_lse, inputs, run
from relvlm_kernels.registration import nothing, register


def window_attention(qkv: Tensor, bias: Tensor, mask: Tensor | None = None, scale: float | None = None) -> Tensor:
    """Attention of each window of qkv (B, N, 3, H, D) to itself, `bias` (H, N, N) added to its scores.

    Of `mask` (W, N, N), which has no gradient, window b has the entry b % W added too. Returns (B, N, H, D). Scale,
    autocast and errors as in `region_attention`.
    """
    masks = {} if mask is None else {"mask": mask.detach()}
    qkv, bias, *rest = inputs("window_attention", qkv=qkv, bias=bias, **masks)
    mask = rest[0] if rest else None
    if qkv.device.type != "cpu":
        return by_matrix_products(qkv, bias, mask, default_scale(scale, qkv))
    return _window_attention(qkv, bias, mask, default_scale(scale, qkv))[0]


def by_matrix_products(qkv: Tensor, bias: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """For devices without a kernel, on which `reference`'s arithmetic in fp32 would be slow: keeps scores."""
    signatures.check_window_attention("window_attention", qkv, bias, mask)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    added = bias if mask is None else (bias + mask[:, None]).repeat(len(qkv) // len(mask), 1, 1, 1)
    return ((q @ k.transpose(-1, -2) * scale + added).softmax(-1) @ v).transpose(1, 2)


def _kernel(qkv: Tensor, bias: Tensor, mask: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
    tensors = (qkv, bias) if mask is None else (qkv, bias, mask)
    checks.once(signatures.check_window_attention, "window_attention", tensors)
    return contiguous(run("window_attention", qkv, qkv, bias, mask, scale))


def _fake(qkv: Tensor, bias: Tensor, mask: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
    signatures.check_window_attention("window_attention", qkv, bias, mask)
    q = qkv.select(2, 0)
    return empty(q), empty_lse(q)


def _backward_kernel(
    grad: Tensor, qkv: Tensor, bias: Tensor, out: Tensor, lse: Tensor, mask: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    tensors = (grad, qkv, bias, out, lse, *([] if mask is None else [mask]))
    checks.once(signatures.check_window_attention_backward, "window_attention_backward", tensors)
    return contiguous(run("window_attention_backward", qkv, grad, qkv, bias, mask, out, lse, scale))


def _backward_fake(grad: Tensor, qkv: Tensor, bias: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return empty(qkv), empty(bias)


def _save(ctx: Any, inputs: Any, output: Any) -> None:
    qkv, bias, mask, ctx.scale = inputs
    ctx.save_for_backward(qkv, bias, *output, mask)
    ctx.mark_non_differentiable(output[1])


def _vjp(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    return *_window_attention_backward(grad, *ctx.saved_tensors, ctx.scale), None, None


_window_attention = register(
    "window_attention(Tensor qkv, Tensor bias, Tensor? mask, float scale) -> (Tensor, Tensor)",
    _kernel, _fake, _save, _vjp,
)  # fmt: skip
_window_attention_backward = register(
    "window_attention_backward(Tensor grad, Tensor qkv, Tensor bias, Tensor out, Tensor lse, Tensor? mask, "
    "float scale) -> (Tensor, Tensor)",
    _backward_kernel, _backward_fake, nothing, no_second_derivative("window_attention"),
)  # fmt: skip
