"""`add_norm` and `bias_gelu`; sums over rows are of strips first, in their order, and then by torch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from relvlm_kernels.dropout import threshold
from relvlm_kernels.triton.kernels import rows
from relvlm_kernels.triton.launch import cdiv, launch, power_of_2

ROWS = 16  # of a strip of the backward
ELEMENTS = 1024  # of a tile of `bias_gelu`


def add_norm(
    x: Tensor, residual: Tensor, weight: Tensor, shift: Tensor, eps: float, dropout: float, seed: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See `reference.add_norm`."""
    x, residual = x.contiguous(), residual.contiguous()
    out, total = torch.empty_like(residual), torch.empty_like(residual)
    count = x.shape[0]
    mean, rstd = (torch.empty(count, dtype=torch.float32, device=x.device) for _ in range(2))
    arguments = _dropout(residual, dropout, seed) | {
        "x": x, "residual": residual, "weight": weight.contiguous(), "shift": shift.contiguous(),
        "out": out, "total": total, "mean": mean, "rstd": rstd, "eps": eps,
    }  # fmt: skip
    launch(rows.add_norm, count, arguments)
    return out, total, mean, rstd


def add_norm_backward(
    grad: Tensor, total: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor, dropout: float, seed: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    grad, total = grad.contiguous(), total.contiguous()
    dresidual, dx = torch.empty_like(total), torch.empty_like(total if dropout else total[:0])
    count, width = total.shape
    strips = cdiv(count, ROWS)
    sums = torch.empty(strips, 2, width, dtype=torch.float32, device=total.device)
    arguments = _dropout(total, dropout, seed) | {
        "grad": grad, "total": total, "mean": mean.contiguous(), "rstd": rstd.contiguous(),
        "weight": weight.contiguous(), "dresidual": dresidual, "dx": dx, "sums": sums, "rows": count, "ROWS": ROWS,
    }  # fmt: skip
    launch(rows.add_norm_backward, strips, arguments)
    dweight, dshift = (x.to(total.dtype) for x in (sums[:, 0].sum(0), sums[:, 1].sum(0)))
    return dresidual, dx, dweight, dshift


def bias_gelu(x: Tensor, bias: Tensor) -> Tensor:
    """See `reference.bias_gelu`."""
    x = x.contiguous()
    out = torch.empty_like(x)
    launch(rows.bias_gelu, cdiv(x.numel(), ELEMENTS), _elements(x, bias) | {"out": out})
    return out


def bias_gelu_backward(grad: Tensor, x: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    x = x.contiguous()
    out, dx = torch.empty_like(x), torch.empty_like(x)
    arguments = _elements(x, bias) | {"grad": grad.contiguous(), "out": out, "dx": dx}
    launch(rows.bias_gelu_backward, cdiv(x.numel(), ELEMENTS), arguments)
    return out, dx, dx.sum(0, dtype=torch.float32).to(bias.dtype)


def _dropout(x: Tensor, dropout: float, seed: Tensor | None) -> dict[str, Any]:
    """With the sizes of rows (T, D). The threshold is a 32-bit word, as a signed number."""
    width, below = x.shape[1], threshold(dropout)
    return {
        "seed": x if seed is None else seed, "threshold": below - 2**32 if below >= 2**31 else below,
        "keep_scale": 1 / (1 - dropout), "D": width, "DROPOUT": dropout > 0,
        "BLOCK": max(64, power_of_2(width)),
    }  # fmt: skip


def _elements(x: Tensor, bias: Tensor) -> dict[str, Any]:
    return {"x": x, "bias": bias.contiguous(), "size": x.numel(), "F": x.shape[1], "BLOCK": ELEMENTS}
