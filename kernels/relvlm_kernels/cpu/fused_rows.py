"""`add_norm` and `bias_gelu` of the `cpu` backend, and their gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from relvlm_kernels.cpu import library
from relvlm_kernels.cpu.library import DTYPES, AddNorm, BiasGelu
from relvlm_kernels.dropout import threshold
from relvlm_kernels.native import Filled, Structure


def add_norm(
    x: Tensor, residual: Tensor, weight: Tensor, shift: Tensor, eps: float, dropout: float, seed: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See `eager.add_norm`."""
    residual = residual.contiguous()
    out, total = torch.empty_like(residual), torch.empty_like(residual)
    mean, rstd = (torch.empty(len(residual), dtype=_wide(residual)) for _ in range(2))
    call = _call(AddNorm(), residual)
    _set_dropout(call, dropout, seed)
    call.set(eps=eps)
    call.point(residual=residual, out=out, total=total, mean=mean, rstd=rstd)
    call.point(x=x.to(residual.dtype).contiguous(), weight=weight.contiguous(), shift=shift.contiguous())
    library.run("add_norm", "add_norm", call.struct)
    return out, total, mean, rstd


def add_norm_backward(
    grad: Tensor, total: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor, dropout: float, seed: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    total = total.contiguous()
    dresidual = torch.empty_like(total)
    dx = torch.empty_like(total if dropout else total[:0])
    dweight, dshift = (torch.empty(total.shape[1], dtype=total.dtype) for _ in range(2))
    call = _call(AddNorm(), total)
    _set_dropout(call, dropout, seed)
    call.set(backward=True)
    call.point(grad=grad.contiguous(), total=total, mean=mean.contiguous(), rstd=rstd.contiguous())
    call.point(weight=weight.contiguous(), dresidual=dresidual, dx=dx, dweight=dweight, dshift=dshift)
    library.run("add_norm_backward", "add_norm", call.struct)
    return dresidual, dx, dweight, dshift


def bias_gelu(x: Tensor, bias: Tensor) -> Tensor:
    """See `eager.bias_gelu`."""
    x = x.contiguous()
    out = torch.empty_like(x)
    call = _call(BiasGelu(), x)
    call.point(x=x, bias=bias.contiguous(), out=out)
    library.run("bias_gelu", "bias_gelu", call.struct)
    return out


def bias_gelu_backward(grad: Tensor, x: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Writes the gradient of x where that of the result was, if it is dense."""
    x, grad = x.contiguous(), grad.contiguous()
    out, dbias = torch.empty_like(x), torch.empty_like(bias, memory_format=torch.contiguous_format)
    call = _call(BiasGelu(), x)
    call.set(backward=True)
    call.point(x=x, bias=bias.contiguous(), grad=grad, out=out, dx=grad, dbias=dbias)
    library.run("bias_gelu_backward", "bias_gelu", call.struct)
    return out, grad, dbias


def _call(struct: Structure, rows: Tensor) -> Filled:
    call = Filled(struct)
    call.set(rows=rows.shape[0], width=rows.shape[1], type=DTYPES[rows.dtype], threads=torch.get_num_threads())
    return call


def _set_dropout(call: Filled, dropout: float, seed: Tensor | None) -> None:
    if dropout and seed is not None:
        call.set(drop_below=threshold(dropout), keep_scale=1 / (1 - dropout), seed=seed.item() % 2**64)


def _wide(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32
