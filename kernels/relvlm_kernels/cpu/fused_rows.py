"""`add_norm` and `bias_gelu` of the `cpu` backend, and their gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from relvlm_kernels.cpu import library
from relvlm_kernels.cpu.library import DTYPES, AddNorm, BiasGelu
from relvlm_kernels.dropout import threshold


def add_norm(
    x: Tensor, residual: Tensor, weight: Tensor, shift: Tensor, eps: float, dropout: float, seed: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See `reference.add_norm`."""
    x = x if x.dtype == residual.dtype else x.to(residual.dtype)
    x, residual = x.contiguous(), residual.contiguous()
    weight, shift = weight.contiguous(), shift.contiguous()
    out, total = torch.empty_like(residual), torch.empty_like(residual)
    rows, wide = residual.shape[0], _wide(residual)
    mean, rstd = torch.empty(rows, dtype=wide), torch.empty(rows, dtype=wide)
    call = AddNorm(
        x=x.data_ptr(), residual=residual.data_ptr(), weight=weight.data_ptr(), shift=shift.data_ptr(),
        out=out.data_ptr(), total=total.data_ptr(), mean=mean.data_ptr(), rstd=rstd.data_ptr(), eps=eps,
        **_rows(residual), **_dropout(dropout, seed),
    )  # fmt: skip
    library.run("add_norm", "add_norm", call)
    return out, total, mean, rstd


def add_norm_backward(
    grad: Tensor, total: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor, dropout: float, seed: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    grad, total, weight = grad.contiguous(), total.contiguous(), weight.contiguous()
    mean, rstd = mean.contiguous(), rstd.contiguous()
    dresidual, dx = torch.empty_like(total), torch.empty_like(total if dropout else total[:0])
    dweight, dshift = torch.empty_like(weight), torch.empty_like(weight)
    call = AddNorm(
        grad=grad.data_ptr(), total=total.data_ptr(), mean=mean.data_ptr(), rstd=rstd.data_ptr(),
        weight=weight.data_ptr(), dresidual=dresidual.data_ptr(), dx=dx.data_ptr(), dweight=dweight.data_ptr(),
        dshift=dshift.data_ptr(), backward=1, **_rows(total), **_dropout(dropout, seed),
    )  # fmt: skip
    library.run("add_norm_backward", "add_norm", call)
    return dresidual, dx, dweight, dshift


def bias_gelu(x: Tensor, bias: Tensor) -> Tensor:
    """See `reference.bias_gelu`."""
    x, bias = x.contiguous(), bias.contiguous()
    out = torch.empty_like(x)
    call = BiasGelu(x=x.data_ptr(), bias=bias.data_ptr(), out=out.data_ptr(), **_rows(x))
    library.run("bias_gelu", "bias_gelu", call)
    return out


def bias_gelu_backward(grad: Tensor, x: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Writes the gradient of x where that of the result was, if it is dense."""
    x, bias, grad = x.contiguous(), bias.contiguous(), grad.contiguous()
    out, dbias = torch.empty_like(x), torch.empty_like(bias)
    call = BiasGelu(
        x=x.data_ptr(), bias=bias.data_ptr(), grad=grad.data_ptr(), out=out.data_ptr(), dx=grad.data_ptr(),
        dbias=dbias.data_ptr(), backward=1, **_rows(x),
    )  # fmt: skip
    library.run("bias_gelu_backward", "bias_gelu", call)
    return out, grad, dbias


def _rows(x: Tensor) -> dict[str, Any]:
    return {"rows": x.shape[0], "width": x.shape[1], "type": DTYPES[x.dtype], "threads": torch.get_num_threads()}


def _dropout(dropout: float, seed: Tensor | None) -> dict[str, Any]:
    if not dropout or seed is None:
        return {}
    return {"drop_below": threshold(dropout), "keep_scale": 1 / (1 - dropout), "seed": seed.item() % 2**64}


def _wide(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32
