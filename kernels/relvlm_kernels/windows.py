"""Attention within windows of one length, with a bias of their scores: Swin's (Liu et al., 2021).

On a CPU no scores are kept: the backward computes them again.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.library import custom_op

from relvlm_kernels import checks
from relvlm_kernels.derivatives import no_second_derivative
from relvlm_kernels.dispatch import contiguous, default_scale, empty, empty_lse, inputs, run


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
    """For devices without a kernel, on which `eager`'s arithmetic in fp32 would be slow: keeps scores."""
    checks.check_window_attention("window_attention", qkv, bias, mask)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    added = bias if mask is None else (bias + mask[:, None]).repeat(len(qkv) // len(mask), 1, 1, 1)
    return ((q @ k.transpose(-1, -2) * scale + added).softmax(-1) @ v).transpose(1, 2)


@custom_op("relvlm::window_attention", mutates_args=())
def _window_attention(qkv: Tensor, bias: Tensor, mask: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
    checks.check_window_attention("window_attention", qkv, bias, mask)
    return contiguous(run("window_attention", qkv, qkv, bias, mask, scale))


@_window_attention.register_fake
def _(qkv: Tensor, bias: Tensor, mask: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
    checks.check_window_attention("window_attention", qkv, bias, mask)
    q = qkv.select(2, 0)
    return empty(q), empty_lse(q)


@custom_op("relvlm::window_attention_backward", mutates_args=())
def _window_attention_backward(
    grad: Tensor, qkv: Tensor, bias: Tensor, mask: Tensor | None, out: Tensor, lse: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    arguments = checks.check_window_attention("window_attention_backward", qkv, bias, mask)
    checks.check_saved(arguments, "B N", grad, out, lse)
    return contiguous(run("window_attention_backward", qkv, grad, qkv, bias, mask, out, lse, scale))


@_window_attention_backward.register_fake
def _(grad: Tensor, qkv: Tensor, bias: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return empty(qkv), empty(bias)


def _save(ctx: Any, inputs: Any, output: Any) -> None:
    qkv, bias, mask, ctx.scale = inputs
    ctx.save_for_backward(qkv, bias, mask, *output)
    ctx.mark_non_differentiable(output[1])


def _vjp(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    return *_window_attention_backward(grad, *ctx.saved_tensors, ctx.scale), None, None


_window_attention.register_autograd(_vjp, setup_context=_save)
_window_attention_backward.register_autograd(no_second_derivative("window_attention"))
