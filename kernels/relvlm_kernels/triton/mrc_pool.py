"""`mrc_pool`: matrix products whose operand rows are gathered as they are read; every gradient has one writer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from relvlm_kernels.triton.kernels import pairs
from relvlm_kernels.triton.launch import cdiv, dense_rows, launch

ROWS, COLUMNS, INNER = 64, 64, 32  # of a tile of the products
FEATURES = 128  # of a row of dh, at a time


def mrc_pool(h: Tensor, subject_rows: Tensor, object_rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """See `ops.mrc_pool`."""
    h, weight = dense_rows(h), dense_rows(weight)
    triplets, features = len(subject_rows), len(weight)
    out = torch.empty(triplets, features, dtype=h.dtype, device=h.device)
    arguments = _gathered(h, subject_rows, object_rows) | {
        "weight": weight, "weight_row": weight.stride(0), "bias": bias.contiguous(), "out": out,
        "triplets": triplets, "F": features, "D": h.shape[1], "BLOCK_R": ROWS, "BLOCK_F": COLUMNS, "BLOCK_D": INNER,
    }  # fmt: skip
    launch(pairs.mrc_pool, cdiv(triplets, ROWS) * cdiv(features, COLUMNS), arguments, stages=3)
    return out


def mrc_pool_backward(
    grad: Tensor,
    h: Tensor,
    subject_rows: Tensor,
    object_rows: Tensor,
    weight: Tensor,
    bias: Tensor,
    out: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    grad, h, weight = dense_rows(grad), dense_rows(h), dense_rows(weight)
    common = {
        "grad": grad, "out": out.contiguous(), "grad_row": grad.stride(0), "triplets": len(subject_rows),
        "F": len(weight), "D": h.shape[1],
    }  # fmt: skip
    dweight, dbias = torch.empty(weight.shape, dtype=h.dtype, device=h.device), torch.empty_like(bias)
    arguments = common | _gathered(h, subject_rows, object_rows) | {
        "dweight": dweight, "dbias": dbias, "BLOCK_R": INNER, "BLOCK_F": ROWS, "BLOCK_D": COLUMNS,
    }  # fmt: skip
    programs = cdiv(len(weight), ROWS) * 2 * cdiv(h.shape[1], COLUMNS)
    launch(pairs.mrc_pool_backward_weight, programs, arguments, stages=1 if h.dtype == torch.float32 else 2)
    return _dh(common, h, subject_rows, object_rows, weight), dweight, dbias


def _dh(common: dict[str, Any], h: Tensor, subject_rows: Tensor, object_rows: Tensor, weight: Tensor) -> Tensor:
    triplets, width = len(subject_rows), h.shape[1]
    pieces = torch.empty(2 * triplets, width, dtype=torch.float32, device=h.device)
    arguments = common | {
        "weight": weight, "weight_row": weight.stride(0), "pieces": pieces, "BLOCK_R": ROWS, "BLOCK_F": INNER,
        "BLOCK_D": COLUMNS,
    }  # fmt: skip
    launch(pairs.mrc_pool_backward_rows, cdiv(triplets, ROWS) * 2 * cdiv(width, COLUMNS), arguments)
    rows, order = torch.cat([subject_rows, object_rows]).sort(stable=True)
    starts = torch.searchsorted(rows, torch.arange(len(h) + 1, device=h.device), out_int32=True)
    dh = torch.empty(h.shape, dtype=h.dtype, device=h.device)
    arguments = {
        "pieces": pieces,
        "order": order,
        "starts": starts,
        "dh": dh,
        "D": width,
        "BLOCK_D": FEATURES,
    }
    launch(pairs.mrc_pool_backward_h, len(h) * cdiv(width, FEATURES), arguments)
    return dh


def _gathered(h: Tensor, subject_rows: Tensor, object_rows: Tensor) -> dict[str, Any]:
    rows = {"subject": subject_rows, "object_": object_rows}
    return {"h": h, "h_row": h.stride(0)} | {name: x.long().contiguous() for name, x in rows.items()}
