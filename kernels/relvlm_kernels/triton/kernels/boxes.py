"""Means over boxes: forward, a program per box; backward, per tile of tokens, with all boxes of their image."""

import triton
import triton.language as tl

from relvlm_kernels.triton.kernels.masks import query_rows, see
from relvlm_kernels.triton.kernels.owners import tile_columns


@triton.jit(do_not_specialize=["images", "prefix", "width"])
def box_mean(
    x, box, image, out, images, prefix, width, x_image, x_row, D: tl.constexpr, BLOCK_P: tl.constexpr,
    BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Reads the patches of its box alone; none of an image that is not there."""
    g, _, d = tile_columns(D, BLOCK_D)
    x0, y0 = tl.load(box + g * 4), tl.load(box + g * 4 + 1)
    columns = tl.load(box + g * 4 + 2) - x0
    patches = (tl.load(box + g * 4 + 3) - y0) * columns
    source = tl.load(image + g)
    read = tl.where((source >= 0) & (source < images), patches, 0)
    x += source.to(tl.int64) * x_image
    total = tl.zeros([BLOCK_D], tl.float32)
    for start in range(0, read, BLOCK_P):
        p = start + tl.arange(0, BLOCK_P)
        token = prefix + (y0 + p // columns) * width + x0 + p % columns
        there = (p < read)[:, None] & (d < D)[None, :]
        tile = tl.load(x + token[:, None] * x_row + d[None, :], mask=there, other=0.0)
        total += tl.sum(tile.to(tl.float32), 0)
    tl.store(out + g.to(tl.int64) * D + d, (total / patches).to(out.dtype.element_ty), mask=d < D)


@triton.jit(do_not_specialize=["boxes", "tokens", "prefix", "width", "token_tiles"])
def box_mean_backward(
    grad, dx, starts, table, boxes, tokens, prefix, width, token_tiles, grad_row, D: tl.constexpr,
    BLOCK_T: tl.constexpr, BLOCK_G: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    rest, _columns, d = tile_columns(D, BLOCK_D)
    token = rest % token_tiles * BLOCK_T + tl.arange(0, BLOCK_T)
    owner = rest // token_tiles
    first, end = tl.load(starts + owner), tl.load(starts + owner + 1)
    total = tl.zeros([BLOCK_T, BLOCK_D], tl.float32)
    for start in range(first, end, BLOCK_G):
        position = start + tl.arange(0, BLOCK_G)
        g, ys, xs, flags, _owned = query_rows(table, boxes, position, position < end, first, end, True)
        patches = tl.maximum(((ys >> 16) - (ys & 0xFFFF)) * ((xs >> 16) - (xs & 0xFFFF)), 1).to(tl.float32)
        _mean, inside = see(  # another name than above: Triton carries a name through a loop with its type
            ys[None, :], xs[None, :], flags[None, :], token[:, None], tokens, prefix, width, True, False
        )
        there = (position < end)[:, None] & (d < D)[None, :]
        tile = tl.load(grad + g[:, None].to(tl.int64) * grad_row + d[None, :], mask=there, other=0.0)
        share = tl.where(inside, (1.0 / patches)[None, :], 0.0)
        total = tl.dot(share, tile.to(tl.float32), total, input_precision="ieee")
    place = (owner.to(tl.int64) * tokens + token)[:, None] * D + d[None, :]
    tl.store(dx + place, total.to(dx.dtype.element_ty), mask=(token < tokens)[:, None] & (d < D)[None, :])
