"""Query rows of one image side by side, found on the device: groups come in any order, and nothing waits for it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from relvlm_kernels.triton.launch import launch

BLOCK_GROUPS = 128
BLOCK_ROWS = 4  # of a group, at a time


@dataclass(frozen=True)
class Plan:
    """starts: (owners + 1,) int32, rows [starts[o], starts[o + 1]) of the table are those of owner o (an image).

    table: (4, T) int32: packed row, y0 | y1 << 16, x0 | x1 << 16, flags (1: prefix, 2: mean token).
    with_mean: (owners,) int32, whether any group of the image attends to its mean token.
    """

    starts: Tensor
    table: Tensor
    with_mean: Tensor


@triton.jit(do_not_specialize=["groups", "rows"])
def _plan(
    offsets, image, box, prefix, mean, starts, table, with_mean, groups, rows,
    BLOCK_G: tl.constexpr, BLOCK_R: tl.constexpr,
):  # fmt: skip
    """One program per image reads every group's image: a few KB, from the cache for all but the first."""
    owner = tl.program_id(0)
    earlier = 0
    for block in range(0, groups, BLOCK_G):
        g = block + tl.arange(0, BLOCK_G)
        there = g < groups
        length = tl.load(offsets + g + 1, mask=there, other=0) - tl.load(offsets + g, mask=there, other=0)
        earlier += tl.sum(tl.where(tl.load(image + g, mask=there, other=owner) < owner, length, 0))
    tl.store(starts + owner, earlier)
    any_mean = 0
    for block in range(0, groups, BLOCK_G):
        g = block + tl.arange(0, BLOCK_G)
        own = tl.load(image + g, mask=g < groups, other=-1) == owner
        first = tl.load(offsets + g, mask=own, other=0)
        length = tl.load(offsets + g + 1, mask=own, other=0) - first
        place = earlier + tl.cumsum(length) - length
        x0, y0 = tl.load(box + g * 4, mask=own, other=0), tl.load(box + g * 4 + 1, mask=own, other=0)
        x1, y1 = tl.load(box + g * 4 + 2, mask=own, other=0), tl.load(box + g * 4 + 3, mask=own, other=0)
        ys, xs = y0 | (y1 << 16), x0 | (x1 << 16)
        has_prefix = tl.load(prefix + g, mask=own, other=0).to(tl.int32)
        has_mean = tl.load(mean + g, mask=own, other=0).to(tl.int32)
        any_mean = tl.maximum(any_mean, tl.max(has_mean))
        flags = has_prefix + 2 * has_mean
        for start in range(0, tl.max(length), BLOCK_R):
            token = start + tl.arange(0, BLOCK_R)
            position = place[:, None] + token[None, :]
            write = (token[None, :] < length[:, None]) & (position < rows)
            at = table + position
            none = token[None, :] * 0
            tl.store(at, first[:, None] + token[None, :], mask=write)
            tl.store(at + rows, ys[:, None] + none, mask=write)
            tl.store(at + 2 * rows, xs[:, None] + none, mask=write)
            tl.store(at + 3 * rows, flags[:, None] + none, mask=write)
        earlier += tl.sum(length)
    tl.store(with_mean + owner, any_mean)
    if owner == tl.num_programs(0) - 1:
        tl.store(starts + owner + 1, earlier)


def by_image(
    offsets: Tensor, image: Tensor, box: Tensor, prefix: Tensor, mean: Tensor, images: int, rows: int
) -> Plan:
    """Plan of `rows` packed rows that look at `images` images; groups as in `Regions`."""
    table = torch.empty(4, rows, dtype=torch.int32, device=image.device)
    starts = torch.empty(images + 1, dtype=torch.int32, device=image.device)
    with_mean = torch.empty(images, dtype=torch.int32, device=image.device)
    index = {"offsets": offsets, "image": image, "box": box}
    flags = {"prefix": prefix, "mean": mean}
    arguments = {
        "starts": starts, "table": table, "with_mean": with_mean, "groups": len(image), "rows": rows,
        "BLOCK_G": BLOCK_GROUPS, "BLOCK_R": BLOCK_ROWS,
        **{name: x.to(torch.int32).contiguous() for name, x in index.items()},
        **{name: x.bool().contiguous().view(torch.uint8) for name, x in flags.items()},
    }  # fmt: skip
    launch(_plan, images, arguments)
    return Plan(starts, table, with_mean)
