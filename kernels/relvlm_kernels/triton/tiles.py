"""Sizes of tiles: the largest that spill no registers on sm_80 and sm_90 (`benchmarks/aot_check.py` sees to that).

What a tile of queries is a compromise of: each reads the keys and values of its boxes once more, from the L2 cache, so
that large ones are good; but it works on the union of its boxes, so that small ones are good; and the sums that the
mean token needs leave few registers.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

MAX_WIDTH = 128


class Tile(NamedTuple):
    """queries x keys; stages: tiles in flight; registers: per thread at most, for a third block of 4 warps."""

    queries: int
    keys: int
    warps: int
    stages: int = 1
    registers: int | None = None


def forward(width: int, dtype: torch.dtype) -> Tile:
    """Tile of the forward for heads of `width`, a power of 2."""
    if dtype == torch.float32:
        return Tile(16, 32, 4 if width <= 64 else 8)
    return Tile(32, 32, 4, stages=3, registers=168) if width <= 64 else Tile(32, 32, 4, stages=2)


def backward_q(width: int, dtype: torch.dtype) -> Tile:
    if dtype == torch.float32:
        return Tile(16, 32 if width <= 64 else 16, 8)
    return Tile(32, 32, 4, stages=2)


def backward_kv(width: int, dtype: torch.dtype) -> Tile:
    if dtype == torch.float32:
        return Tile(16, 32, 8)
    if width < 64:
        return Tile(16, 64, 4)
    return Tile(32, 32, 4, stages=2) if width == 64 else Tile(32, 32, 8)
