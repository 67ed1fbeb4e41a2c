"""`mrc_pool`: matrix products whose operand rows are gathered as they are read; every gradient has one writer."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from relvlm_kernels.triton.launch import dense_rows, launch

ROWS, COLUMNS, INNER = 64, 64, 32  # of a tile of the products
FEATURES = 128  # of a row of dh, at a time


@triton.jit(do_not_specialize=["triplets"])
def _mrc_pool(
    h, subject, object_, weight, bias, out, triplets, h_row, weight_row, F: tl.constexpr, D: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_F: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    tiles: tl.constexpr = (F + BLOCK_F - 1) // BLOCK_F
    r = tl.program_id(0) // tiles * BLOCK_R + tl.arange(0, BLOCK_R)
    f = tl.program_id(0) % tiles * BLOCK_F + tl.arange(0, BLOCK_F)
    of_subject = h + tl.load(subject + r, mask=r < triplets, other=0)[:, None] * h_row
    of_object = h + tl.load(object_ + r, mask=r < triplets, other=0)[:, None] * h_row
    weight += f[:, None] * weight_row
    total = tl.zeros([BLOCK_R, BLOCK_F], tl.float32)
    for start in range(0, D, BLOCK_D):
        d = start + tl.arange(0, BLOCK_D)[None, :]
        here, there = (r < triplets)[:, None] & (d < D), (f < F)[:, None] & (d < D)
        total = tl.dot(
            tl.load(of_subject + d, mask=here, other=0.0), tl.trans(tl.load(weight + d, mask=there, other=0.0)),
            total, input_precision="ieee",
        )  # fmt: skip
        total = tl.dot(
            tl.load(of_object + d, mask=here, other=0.0), tl.trans(tl.load(weight + D + d, mask=there, other=0.0)),
            total, input_precision="ieee",
        )  # fmt: skip
    total += tl.load(bias + f, mask=f < F, other=0.0).to(tl.float32)[None, :]
    total = tl.where(total < 0.0, 0.0, total)  # not maximum: NaN stays NaN
    place = r[:, None].to(tl.int64) * F + f[None, :]
    tl.store(out + place, total.to(out.dtype.element_ty), mask=(r < triplets)[:, None] & (f < F)[None, :])


@triton.jit
def _active(grad, out, r, f, triplets, grad_row, F: tl.constexpr):
    """Gradient before the relu, (rows, features) of index blocks `r` and `f`."""
    there = (r < triplets)[:, None] & (f < F)[None, :]
    long_r = r[:, None].to(tl.int64)
    tile = tl.load(grad + long_r * grad_row + f[None, :], mask=there, other=0.0)
    return tl.where(tl.load(out + long_r * F + f[None, :], mask=there, other=0.0) > 0.0, tile, 0.0)


@triton.jit(do_not_specialize=["triplets"])
def _mrc_pool_backward_rows(
    grad, out, weight, pieces, triplets, grad_row, weight_row, F: tl.constexpr, D: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_F: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """pieces (2, R, D) float32: what each triplet adds to its subject's row of dh, and to its object's."""
    tiles: tl.constexpr = (D + BLOCK_D - 1) // BLOCK_D
    d = tl.program_id(0) % tiles * BLOCK_D + tl.arange(0, BLOCK_D)
    part = tl.program_id(0) // tiles % 2
    r = tl.program_id(0) // tiles // 2 * BLOCK_R + tl.arange(0, BLOCK_R)
    total = tl.zeros([BLOCK_R, BLOCK_D], tl.float32)
    for start in range(0, F, BLOCK_F):
        f = start + tl.arange(0, BLOCK_F)
        tile = _active(grad, out, r, f, triplets, grad_row, F)
        there = (f < F)[:, None] & (d < D)[None, :]
        w = tl.load(weight + f[:, None] * weight_row + part * D + d[None, :], mask=there, other=0.0)
        total = tl.dot(tile, w, total, input_precision="ieee")
    place = (part * triplets + r)[:, None].to(tl.int64) * D + d[None, :]
    tl.store(pieces + place, total, mask=(r < triplets)[:, None] & (d < D)[None, :])


@triton.jit
def _mrc_pool_backward_h(pieces, order, starts, dh, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """A row of dh adds its pieces in the order of the triplets."""
    tiles: tl.constexpr = (D + BLOCK_D - 1) // BLOCK_D
    row = tl.program_id(0) // tiles
    d = tl.program_id(0) % tiles * BLOCK_D + tl.arange(0, BLOCK_D)
    total = tl.zeros([BLOCK_D], tl.float32)
    for place in range(tl.load(starts + row), tl.load(starts + row + 1)):
        total += tl.load(pieces + tl.load(order + place) * D + d, mask=d < D, other=0.0)
    tl.store(dh + row.to(tl.int64) * D + d, total.to(dh.dtype.element_ty), mask=d < D)


@triton.jit(do_not_specialize=["triplets"])
def _mrc_pool_backward_weight(
    grad, out, h, subject, object_, dweight, dbias, triplets, grad_row, h_row, F: tl.constexpr, D: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_F: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    tiles: tl.constexpr = (D + BLOCK_D - 1) // BLOCK_D
    d = tl.program_id(0) % tiles * BLOCK_D + tl.arange(0, BLOCK_D)
    part = tl.program_id(0) // tiles % 2
    f = tl.program_id(0) // tiles // 2 * BLOCK_F + tl.arange(0, BLOCK_F)
    rows = subject
    if part == 1:
        rows = object_
    total = tl.zeros([BLOCK_F, BLOCK_D], tl.float32)
    of_bias = tl.zeros([BLOCK_F], tl.float32)
    for start in range(0, triplets, BLOCK_R):
        r = start + tl.arange(0, BLOCK_R)
        tile = _active(grad, out, r, f, triplets, grad_row, F)
        row = tl.load(rows + r, mask=r < triplets, other=0)
        there = (r < triplets)[:, None] & (d < D)[None, :]
        h_tile = tl.load(h + row[:, None] * h_row + d[None, :], mask=there, other=0.0)
        total = tl.dot(tl.trans(tile), h_tile, total, input_precision="ieee")
        of_bias += tl.sum(tile.to(tl.float32), 0)
    place = f[:, None] * (2 * D) + part * D + d[None, :]
    tl.store(dweight + place, total.to(dweight.dtype.element_ty), mask=(f < F)[:, None] & (d < D)[None, :])
    if tl.program_id(0) % (2 * tiles) == 0:
        tl.store(dbias + f, of_bias.to(dbias.dtype.element_ty), mask=f < F)


def mrc_pool(h: Tensor, subject_rows: Tensor, object_rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """See `ops.mrc_pool`."""
    h, weight = dense_rows(h), dense_rows(weight)
    triplets, features = len(subject_rows), len(weight)
    out = torch.empty(triplets, features, dtype=h.dtype, device=h.device)
    arguments = _gathered(h, subject_rows, object_rows) | {
        "weight": weight, "weight_row": weight.stride(0), "bias": bias.contiguous(), "out": out,
        "triplets": triplets, "F": features, "D": h.shape[1], "BLOCK_R": ROWS, "BLOCK_F": COLUMNS, "BLOCK_D": INNER,
    }  # fmt: skip
    launch(_mrc_pool, triton.cdiv(triplets, ROWS) * triton.cdiv(features, COLUMNS), arguments, stages=3)
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
    programs = triton.cdiv(len(weight), ROWS) * 2 * triton.cdiv(h.shape[1], COLUMNS)
    launch(_mrc_pool_backward_weight, programs, arguments, stages=1 if h.dtype == torch.float32 else 2)
    return _dh(common, h, subject_rows, object_rows, weight), dweight, dbias


def _dh(
    common: dict[str, Any], h: Tensor, subject_rows: Tensor, object_rows: Tensor, weight: Tensor
) -> Tensor:
    triplets, width = len(subject_rows), h.shape[1]
    pieces = torch.empty(2 * triplets, width, dtype=torch.float32, device=h.device)
    arguments = common | {
        "weight": weight, "weight_row": weight.stride(0), "pieces": pieces, "BLOCK_R": ROWS, "BLOCK_F": INNER,
        "BLOCK_D": COLUMNS,
    }  # fmt: skip
    launch(_mrc_pool_backward_rows, triton.cdiv(triplets, ROWS) * 2 * triton.cdiv(width, COLUMNS), arguments)
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
    launch(_mrc_pool_backward_h, len(h) * triton.cdiv(width, FEATURES), arguments)
    return dh


def _gathered(h: Tensor, subject_rows: Tensor, object_rows: Tensor) -> dict[str, Any]:
    rows = {"subject": subject_rows, "object_": object_rows}
    return {"h": h, "h_row": h.stride(0)} | {name: x.long().contiguous() for name, x in rows.items()}
