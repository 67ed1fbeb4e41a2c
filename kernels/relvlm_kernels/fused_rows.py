"""What follows a matrix product, row by row, in one pass: dropout, residual, LayerNorm; bias and GELU.

Each op keeps one tensor of its rows for the backward: the sum before the norm (the mask of dropout is drawn again from
its counter), and the product before its bias (GELU is computed again, in the pass that computes its derivative).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from relvlm_kernels import checks, signatures
from relvlm_kernels.derivatives import check_differentiation, no_second_derivative
from relvlm_kernels.dispatch import contiguous, dropout_seed, empty, inputs, run
from relvlm_kernels.registration import nothing, register


def add_norm(
    x: Tensor, residual: Tensor, weight: Tensor, shift: Tensor, eps: float = 1e-5, dropout: float = 0.0,
    seed: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """LayerNorm(residual + dropout(x)) with factors `weight` and summands `shift`: of BERT's layers.

    x, residual: (T, D); weight, shift: (D,). All of one dtype but x, which a product under autocast may have narrowed;
    the result is of theirs, sums are in fp32 (fp64 for fp64). `dropout` and `seed` as in `region_attention`, but of
    features. Raises TypeError and ValueError as in `checks`, NotImplementedError as `region_attention` does.
    """
    tensors = {"x": x, "residual": residual, "weight": weight, "shift": shift}
    checks.check_tensors("add_norm", **tensors)
    check_differentiation("add_norm", tensors.values())
    return _add_norm(x, residual, weight, shift, eps, dropout, dropout_seed(seed, dropout, x))[0]


def gelu_linear(x: Tensor, bias: Tensor, weight: Tensor, out_bias: Tensor) -> Tensor:
    """linear(gelu(x + bias), weight, out_bias), GELU by erf: a feed-forward layer from its first product on.

    x: (T, F); bias: (F,); weight: (D, F); out_bias: (D,). Returns (T, D). Autocast and errors as in
    `region_attention`.
    """
    return _gelu_linear(*inputs("gelu_linear", x=x, bias=bias, weight=weight, out_bias=out_bias))


def _add_norm_kernel(
    x: Tensor, residual: Tensor, weight: Tensor, shift: Tensor, eps: float, dropout: float, seed: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The normalised rows, the sums, and of these the mean and 1 / deviation, (T,) each."""
    checks.once(signatures.check_add_norm, "add_norm", (x, residual, weight, shift))
    return contiguous(run("add_norm", residual, x, residual, weight, shift, eps, dropout, seed))


def _add_norm_fake(
    x: Tensor, residual: Tensor, weight: Tensor, shift: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    signatures.check_add_norm("add_norm", x, residual, weight, shift)
    return empty(residual), empty(residual), empty_moments(residual), empty_moments(residual)


def _add_norm_backward_kernel(
    grad: Tensor, total: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor, dropout: float, seed: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of the residual, of x (no rows without dropout: the same), of weight and shift."""
    checks.once(signatures.check_add_norm_saved, "add_norm_backward", (grad, total, mean, rstd, weight))
    return contiguous(run("add_norm_backward", total, grad, total, mean, rstd, weight, dropout, seed))


def _add_norm_backward_fake(
    grad: Tensor, total: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor, dropout: float, seed: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return empty(total), empty(total if dropout else total[:0]), empty(weight), empty(weight)


def _save_add_norm(ctx: Any, inputs: Any, output: Any) -> None:
    x, _, weight, _, _, ctx.dropout, seed = inputs
    ctx.dtype = x.dtype
    ctx.save_for_backward(*output[1:], weight, seed)
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)


def _add_norm_vjp(ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
    if grad is None:
        return (None,) * 7
    *tensors, seed = ctx.saved_tensors
    dresidual, dx, dweight, dshift = _add_norm_backward(grad, *tensors, ctx.dropout, seed)
    dx = (dx if ctx.dropout else dresidual).to(ctx.dtype)
    return dx, dresidual, dweight, dshift, None, None, None


_add_norm = register(
    "add_norm(Tensor x, Tensor residual, Tensor weight, Tensor shift, float eps, float dropout, Tensor? seed) "
    "-> (Tensor, Tensor, Tensor, Tensor)",
    _add_norm_kernel, _add_norm_fake, _save_add_norm, _add_norm_vjp,
)  # fmt: skip
_add_norm_backward = register(
    "add_norm_backward(Tensor grad, Tensor total, Tensor mean, Tensor rstd, Tensor weight, float dropout, "
    "Tensor? seed) -> (Tensor, Tensor, Tensor, Tensor)",
    _add_norm_backward_kernel, _add_norm_backward_fake, nothing, no_second_derivative("add_norm"),
)  # fmt: skip


def _gelu_linear_kernel(x: Tensor, bias: Tensor, weight: Tensor, out_bias: Tensor) -> Tensor:
    checks.once(signatures.check_gelu_linear, "gelu_linear", (x, bias, weight, out_bias))
    return F.linear(run("bias_gelu", x, x, bias), weight, out_bias)


def _gelu_linear_fake(x: Tensor, bias: Tensor, weight: Tensor, out_bias: Tensor) -> Tensor:
    signatures.check_gelu_linear("gelu_linear", x, bias, weight, out_bias)
    return x.new_empty(x.shape[0], weight.shape[0])


def _gelu_linear_backward_kernel(
    grad: Tensor, x: Tensor, bias: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    checks.once(signatures.check_gelu_linear_backward, "gelu_linear_backward", (grad, x, bias, weight))
    activated, dx, dbias = run("bias_gelu_backward", x, grad @ weight, x, bias)
    return contiguous((dx, dbias, grad.T @ activated, grad.sum(0)))


def _gelu_linear_backward_fake(
    grad: Tensor, x: Tensor, bias: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return empty(x), empty(bias), empty(weight), weight.new_empty(weight.shape[0])


def _save_gelu_linear(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(*inputs[:3])


def _gelu_linear_vjp(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
    return _gelu_linear_backward(grad, *ctx.saved_tensors)


_gelu_linear = register(
    "gelu_linear(Tensor x, Tensor bias, Tensor weight, Tensor out_bias) -> Tensor",
    _gelu_linear_kernel, _gelu_linear_fake, _save_gelu_linear, _gelu_linear_vjp,
)  # fmt: skip
_gelu_linear_backward = register(
    "gelu_linear_backward(Tensor grad, Tensor x, Tensor bias, Tensor weight) -> (Tensor, Tensor, Tensor, Tensor)",
    _gelu_linear_backward_kernel, _gelu_linear_backward_fake, nothing, no_second_derivative("gelu_linear"),
)  # fmt: skip


def empty_moments(rows: Tensor) -> Tensor:
    """(T,) for the means or deviations of rows (T, D)."""
    return rows.new_empty(rows.shape[:1], dtype=torch.float64 if rows.dtype == torch.float64 else torch.float32)
