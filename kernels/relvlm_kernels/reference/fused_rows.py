"""`add_norm` and `bias_gelu`, whose passes over rows the other backends fuse."""

from __future__ import annotations

import torch
from torch import Tensor

from relvlm_kernels.dropout import keep_features
from relvlm_kernels.reference.arithmetic import wide


def add_norm(
    x: Tensor, residual: Tensor, weight: Tensor, shift: Tensor, eps: float, dropout: float, seed: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The normalised rows, the sums, and of these the mean and 1 / deviation; see `fused_rows.add_norm`."""
    dtype, (x, residual, weight, shift) = residual.dtype, wide(x, residual, weight, shift)
    total = residual + _kept_features(x, dropout, seed)
    out, mean, rstd = torch.native_layer_norm(total, total.shape[1:], weight, shift, eps)
    return out.to(dtype), total.to(dtype), mean.flatten(), rstd.flatten()


def add_norm_backward(
    grad: Tensor, total: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor, dropout: float, seed: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of the residual, of x (no rows without dropout: the same), of weight and shift."""
    dtype, (grad, total, weight) = total.dtype, wide(grad, total, weight)
    normal = (total - mean[:, None]) * rstd[:, None]
    weighed = grad * weight
    dtotal = weighed - weighed.mean(1, keepdim=True) - normal * (weighed * normal).mean(1, keepdim=True)
    dtotal *= rstd[:, None]
    dx = _kept_features(dtotal, dropout, seed) if dropout else dtotal.new_empty(0, dtotal.shape[1])
    dweight, dshift = (grad * normal).sum(0), grad.sum(0)
    return dtotal.to(dtype), dx.to(dtype), dweight.to(dtype), dshift.to(dtype)


def _kept_features(x: Tensor, dropout: float, seed: Tensor | None) -> Tensor:
    if not dropout or seed is None:
        return x
    return x * keep_features(seed, dropout, *x.shape).to(x.dtype)


def bias_gelu(x: Tensor, bias: Tensor) -> Tensor:
    """gelu(x + bias), by erf."""
    dtype, (x, bias) = x.dtype, wide(x, bias)
    return torch.nn.functional.gelu(x + bias).to(dtype)


def bias_gelu_backward(grad: Tensor, x: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The result again, and the gradients of x and bias."""
    dtype, (grad, x, bias) = x.dtype, wide(grad, x, bias)
    x = x + bias
    dx = torch.ops.aten.gelu_backward(grad, x)
    return torch.nn.functional.gelu(x).to(dtype), dx.to(dtype), dx.sum(0).to(dtype)
