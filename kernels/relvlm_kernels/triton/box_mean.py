"""`box_mean`: forward, a program per box; backward, a program per tile of tokens, with all boxes of their image."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from relvlm_kernels.triton.launch import dense_rows, launch
from relvlm_kernels.triton.masks import query_rows, see
from relvlm_kernels.triton.plan import by_image

PATCHES, FEATURES = 32, 128  # of a forward's tile
TOKENS, BOXES, GRAD_FEATURES = 32, 16, 64  # of a backward's


@triton.jit(do_not_specialize=["prefix", "width"])
def _box_mean(
    x,
    box,
    image,
    out,
    prefix,
    width,
    x_image,
    x_row,
    D: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Reads the patches of its box alone."""
    tiles: tl.constexpr = (D + BLOCK_D - 1) // BLOCK_D
    g = tl.program_id(0) // tiles
    d = tl.program_id(0) % tiles * BLOCK_D + tl.arange(0, BLOCK_D)
    x0, y0 = tl.load(box + g * 4), tl.load(box + g * 4 + 1)
    columns = tl.load(box + g * 4 + 2) - x0
    patches = (tl.load(box + g * 4 + 3) - y0) * columns
    x += tl.load(image + g).to(tl.int64) * x_image
    total = tl.zeros([BLOCK_D], tl.float32)
    for start in range(0, patches, BLOCK_P):
        p = start + tl.arange(0, BLOCK_P)
        token = prefix + (y0 + p // columns) * width + x0 + p % columns
        there = (p < patches)[:, None] & (d < D)[None, :]
        tile = tl.load(x + token[:, None] * x_row + d[None, :], mask=there, other=0.0)
        total += tl.sum(tile.to(tl.float32), 0)
    tl.store(out + g.to(tl.int64) * D + d, (total / patches).to(out.dtype.element_ty), mask=d < D)


@triton.jit(do_not_specialize=["boxes", "tokens", "prefix", "width", "token_tiles"])
def _box_mean_backward(
    grad, dx, starts, table, boxes, tokens, prefix, width, token_tiles, grad_row, D: tl.constexpr,
    BLOCK_T: tl.constexpr, BLOCK_G: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    tiles: tl.constexpr = (D + BLOCK_D - 1) // BLOCK_D
    d = tl.program_id(0) % tiles * BLOCK_D + tl.arange(0, BLOCK_D)
    token = tl.program_id(0) // tiles % token_tiles * BLOCK_T + tl.arange(0, BLOCK_T)
    owner = tl.program_id(0) // tiles // token_tiles
    first, end = tl.load(starts + owner), tl.load(starts + owner + 1)
    total = tl.zeros([BLOCK_T, BLOCK_D], tl.float32)
    for start in range(first, end, BLOCK_G):
        position = start + tl.arange(0, BLOCK_G)
        g, ys, xs, flags = query_rows(table, boxes, position, position < end, True)
        patches = tl.maximum(((ys >> 16) - (ys & 0xFFFF)) * ((xs >> 16) - (xs & 0xFFFF)), 1).to(tl.float32)
        _, inside = see(
            ys[None, :], xs[None, :], flags[None, :], token[:, None], tokens, prefix, width, True, False
        )
        there = (position < end)[:, None] & (d < D)[None, :]
        tile = tl.load(grad + g[:, None].to(tl.int64) * grad_row + d[None, :], mask=there, other=0.0)
        share = tl.where(inside, (1.0 / patches)[None, :], 0.0)
        total = tl.dot(share, tile.to(tl.float32), total, input_precision="ieee")
    place = (owner.to(tl.int64) * tokens + token)[:, None] * D + d[None, :]
    tl.store(dx + place, total.to(dx.dtype.element_ty), mask=(token < tokens)[:, None] & (d < D)[None, :])


def box_mean(x: Tensor, box: Tensor, image: Tensor, grid: tuple[int, int]) -> Tensor:
    """See `ops.box_mean`."""
    x = dense_rows(x)
    out = torch.empty(len(image), x.shape[2], dtype=x.dtype, device=x.device)
    arguments = _grid(x, grid) | {
        "x": x, "box": _int32(box), "image": _int32(image), "out": out, "x_image": x.stride(0), "x_row": x.stride(1),
        "BLOCK_P": PATCHES, "BLOCK_D": FEATURES,
    }  # fmt: skip
    launch(_box_mean, len(image) * triton.cdiv(x.shape[2], FEATURES), arguments)
    return out


def box_mean_backward(grad: Tensor, x: Tensor, box: Tensor, image: Tensor, grid: tuple[int, int]) -> Tensor:
    grad, boxes = dense_rows(grad), len(image)
    dx = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    one_each = torch.arange(boxes + 1, dtype=torch.int32, device=x.device)
    no_flag = torch.zeros(boxes, dtype=torch.bool, device=x.device)
    plan = by_image(one_each, image, box, no_flag, no_flag, x.shape[0], boxes)
    token_tiles = triton.cdiv(x.shape[1], TOKENS)
    arguments = _grid(x, grid) | {
        "grad": grad, "dx": dx, "starts": plan.starts, "table": plan.table, "boxes": boxes, "tokens": x.shape[1],
        "token_tiles": token_tiles, "grad_row": grad.stride(0), "BLOCK_T": TOKENS, "BLOCK_G": BOXES,
        "BLOCK_D": GRAD_FEATURES,
    }  # fmt: skip
    launch(_box_mean_backward, x.shape[0] * token_tiles * triton.cdiv(x.shape[2], GRAD_FEATURES), arguments)
    return dx


def _grid(x: Tensor, grid: tuple[int, int]) -> dict[str, Any]:
    return {"prefix": x.shape[1] - grid[0] * grid[1], "width": grid[1], "D": x.shape[2]}


def _int32(x: Tensor) -> Tensor:
    return x.to(torch.int32).contiguous()
