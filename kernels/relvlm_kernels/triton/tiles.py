"""Sizes of tiles. `benchmarks/aot_check.py` compiles each choice and fails where one spills registers."""

from __future__ import annotations

from typing import NamedTuple

import torch

MAX_WIDTH = 256


class Tile(NamedTuple):
    queries: int
    keys: int
    warps: int
    stages: int


def forward(width: int, dtype: torch.dtype, queries: int) -> Tile:
    """Tile of the forward for heads of `width` (a power of 2) and so many queries per image on average."""
    return _query_tile(width, dtype, queries)


def backward_q(width: int, dtype: torch.dtype, queries: int) -> Tile:
    return _query_tile(width, dtype, queries)


def backward_kv(width: int, dtype: torch.dtype, queries: int) -> Tile:
    if dtype == torch.float32:
        return Tile(16, 32, 4, 1)
    return Tile(32, 64, 4, 1)


def _query_tile(width: int, dtype: torch.dtype, queries: int) -> Tile:
    if dtype == torch.float32:
        return Tile(16, 32, 4, 1)
    return Tile(32, 64, 4, 2)
