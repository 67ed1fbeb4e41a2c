"""What the ops refuse: shapes that disagree, and index tensors that point elsewhere. All raise ValueError.

Index tensors are looked at on the CPU, and on a GPU where RELVLM_CHECK=1: it costs a wait for the device. Without it a
group of an image that is not there sees nothing, and what else is wrong with them may end the stream in an error, as
with torch's own kernels.
"""

from __future__ import annotations

import os

import torch
from torch import Tensor

from relvlm_kernels.regions import Regions

BAD_OFFSETS = "offsets must rise, within the number of packed rows"
BAD_IMAGE = "a group's image is not there"
BAD_BOX = "a group's box is empty or leaves the grid"
BAD_ROW = "a triplet's row is no row of h"


def check_shapes(q: Tensor, k: Tensor, v: Tensor, regions: Regions) -> None:
    """Raises ValueError where these are not the inputs of `region_attention`."""
    if q.dim() != 3 or k.dim() != 4 or k.shape != v.shape or q.shape[1:] != k.shape[2:]:
        raise ValueError(
            f"region_attention: q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)}: "
            "expected (T, H, D), (B, S, H, D), (B, S, H, D)"
        )
    check_grid(k.shape[1], regions)


def check_grid(keys: int, regions: Regions) -> None:
    """Raises ValueError where an image of `keys` tokens has no room for the grid."""
    patches = regions.grid[0] * regions.grid[1]
    if keys < patches:
        raise ValueError(f"region_attention: {keys} keys are fewer than the grid's {patches} patches")


def wanted(device: torch.device) -> bool:
    """Whether index tensors are looked at."""
    return device.type == "cpu" or os.environ.get("RELVLM_CHECK") == "1"


def check_groups(op: str, regions: Regions, queries: int, images: int) -> None:
    """Raises ValueError where these are no groups of so many packed queries and images."""
    check_offsets(op, regions.offsets, queries)
    check_boxes(op, regions.box, regions.image, regions.grid, images)


def check_offsets(op: str, offsets: Tensor, rows: int) -> None:
    rising = (offsets[1:] >= offsets[:-1]).all() & (offsets[0] >= 0) & (offsets[-1] <= rows)
    _require(rising, op, BAD_OFFSETS)


def check_boxes(op: str, box: Tensor, image: Tensor, grid: tuple[int, int], images: int) -> None:
    _require(_within(image, images), op, BAD_IMAGE)
    x0, y0, x1, y1 = box.unbind(1)
    inside = (x0 >= 0) & (y0 >= 0) & (x0 < x1) & (y0 < y1) & (x1 <= grid[1]) & (y1 <= grid[0])
    _require(inside.all(), op, BAD_BOX)


def check_triplets(op: str, subject_rows: Tensor, object_rows: Tensor, rows: int) -> None:
    _require(_within(subject_rows, rows) & _within(object_rows, rows), op, BAD_ROW)


def _within(index: Tensor, end: int) -> Tensor:
    return ((index >= 0) & (index < end)).all()


def _require(holds: Tensor, op: str, message: str) -> None:
    if not holds:
        raise ValueError(f"{op}: {message}")
