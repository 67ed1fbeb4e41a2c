"""Query rows of one image side by side, found on the device: groups come in any order, and nothing waits for it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from relvlm_kernels.triton.kernels import grouping
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


def by_image(
    offsets: Tensor, image: Tensor, box: Tensor, prefix: Tensor, mean: Tensor, images: int, rows: int,
    partial: bool = False,
) -> Plan:  # fmt: skip
    """Plan of `rows` packed rows that look at `images` images; groups as in `Regions`.

    Rows in no group see nothing, and belong to the last image; so do those of groups whose image is not there, which
    are left out where `partial`.
    """
    table = torch.empty(4, rows, dtype=torch.int32, device=image.device)
    starts = torch.empty(images + 1, dtype=torch.int32, device=image.device)
    with_mean = torch.empty(images, dtype=torch.int32, device=image.device)
    index = {"offsets": offsets, "image": image, "box": box}
    flags = {"prefix": prefix, "mean": mean}
    arguments = {
        "starts": starts, "table": table, "with_mean": with_mean, "groups": len(image), "rows": rows,
        "strangers": -1 if partial else images - 1,
        "BLOCK_G": BLOCK_GROUPS, "BLOCK_R": BLOCK_ROWS,
        **{name: x.to(torch.int32).contiguous() for name, x in index.items()},
        **{name: x.bool().contiguous().view(torch.uint8) for name, x in flags.items()},
    }  # fmt: skip
    launch(grouping.plan, images, arguments)
    return Plan(starts, table, with_mean)
