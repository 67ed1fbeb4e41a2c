"""Matrix products whose operand rows are gathered as they are read; every gradient has one writer."""

import triton
import triton.language as tl

from relvlm_kernels.triton.kernels.owners import tile_columns


@triton.jit(do_not_specialize=["triplets"])
def mrc_pool(
    h, subject, object_, weight, bias, out, triplets, h_row, weight_row, F: tl.constexpr, D: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_F: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    rest, _, f = tile_columns(F, BLOCK_F)
    r = rest * BLOCK_R + tl.arange(0, BLOCK_R)
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
def mrc_pool_backward_rows(
    grad, out, weight, pieces, triplets, grad_row, weight_row, F: tl.constexpr, D: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_F: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """pieces (2, R, D) float32: what each triplet adds to its subject's row of dh, and to its object's."""
    rest, _, d = tile_columns(D, BLOCK_D)
    part = rest % 2
    r = rest // 2 * BLOCK_R + tl.arange(0, BLOCK_R)
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
def mrc_pool_backward_h(pieces, order, starts, dh, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """A row of dh adds its pieces in the order of the triplets."""
    row, _, d = tile_columns(D, BLOCK_D)
    total = tl.zeros([BLOCK_D], tl.float32)
    for place in range(tl.load(starts + row), tl.load(starts + row + 1)):
        total += tl.load(pieces + tl.load(order + place) * D + d, mask=d < D, other=0.0)
    tl.store(dh + row.to(tl.int64) * D + d, total.to(dh.dtype.element_ty), mask=d < D)


@triton.jit(do_not_specialize=["triplets"])
def mrc_pool_backward_weight(
    grad, out, h, subject, object_, dweight, dbias, triplets, grad_row, h_row, F: tl.constexpr, D: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_F: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    rest, of_columns, d = tile_columns(D, BLOCK_D)
    part = rest % 2
    f = rest // 2 * BLOCK_F + tl.arange(0, BLOCK_F)
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
    if (part == 0) & (of_columns == 0):
        tl.store(dbias + f, of_bias.to(dbias.dtype.element_ty), mask=f < F)
