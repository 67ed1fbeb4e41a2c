"""Plans of who looks at which keys: the device makes each once, for all layers of a step and their backward."""

from __future__ import annotations

import torch
from torch import Tensor

from relvlm_kernels.cuda import library
from relvlm_kernels.cuda.library import Index, Launch, Plan, int32
from relvlm_kernels.recent import Recent, versions_hold
from relvlm_kernels.regions import Regions

TILE_ROWS = 64  # mirrors csrc/cuda/call.h
VIEW, ITEM, TILE = 8, 4, 4  # words of `View`, `Item`, `Tile`

Sequences = tuple[Tensor, Tensor]  # offsets of queries and of keys


class Planned:
    """Index tensors and room for their plan, whose size follows from shapes alone. The first call that runs makes it.

    items: images or sequences.
    """

    def __init__(self, index: Index, items: int, queries: int, keys: int, alive: tuple[Tensor, ...]) -> None:
        self.index, self.items, self.alive, self.made = index, items, alive, 0
        tiles = queries // TILE_ROWS + items, keys // TILE_ROWS + items
        sizes = [queries * VIEW, items * ITEM, *(TILE * n for n in tiles)]
        self.room = alive[0].new_empty(sum(sizes), dtype=torch.int32)
        self.plan = Plan(*[part.data_ptr() for part in self.room.split(sizes)])

    def run(self, call: Launch) -> None:
        call.struct.planned = self.made
        call.run("attention")
        self.made = 1


_plans: Recent[Planned] = Recent()


def plan_of(index: Sequences | Regions, q: Tensor, k: Tensor, partial: int) -> Planned:
    """That of packed queries q (T, H, D) and the keys k that they look at.

    A graph that is being captured makes all of its plans itself: it will run on other numbers in the same tensors. So
    does whoever calls an op without autograd, as compiled code does.
    """
    if not versions_hold():
        return _made(index, q.shape[0], k.shape)
    if isinstance(index, Regions):
        tensors: tuple[Tensor, ...] = index.offsets, index.image, index.box, index.prefix, index.mean
        grid = index.grid
    else:
        tensors, grid, partial = index, (0, 0), 0  # sequences are all there
    stream = 0
    if q.is_cuda:
        if torch.cuda.is_current_stream_capturing():
            return _made(index, q.shape[0], k.shape)
        stream = library.current_stream(q.device.index)
    key = q.device, stream, q.shape[0], k.shape[:-2], grid, partial
    return _plans.get(key, tensors, _made, index, q.shape[0], k.shape)


def _made(index: Sequences | Regions, queries: int, keys: torch.Size) -> Planned:
    if isinstance(index, Regions):
        flags = {"prefix": index.prefix.contiguous(), "mean": index.mean.contiguous()}
        tensors = {name: int32(getattr(index, name)) for name in ("offsets", "image", "box")} | flags
        sizes = {"grid_rows": index.grid[0], "grid_columns": index.grid[1], "tokens": keys[1]}
        count, items = index.image.shape[0], keys[0]
    else:
        tensors, sizes = {"offsets": int32(index[0]), "key_offsets": int32(index[1])}, {}
        count = items = index[0].shape[0] - 1
    pointers = {name: x.data_ptr() for name, x in tensors.items()}
    return Planned(Index(**pointers, **sizes, count=count), items, queries, keys[:-2].numel(), tuple(tensors.values()))
