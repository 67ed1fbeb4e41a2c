"""The order of an epoch's records, computed a window of shards at a time, when it is reached.

A function of a name (of seed, stream and epoch) and the shards' sizes alone. What it costs in time and memory is the
window's records, however many there are in all and wherever in the epoch a run starts.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from relvlm.data.text import text_key

SHUFFLE_SHARDS = 16  # records are mixed across this many shards at a time: local enough for a network disk
KEPT = 2  # windows: a step may lie across the edge of two


class EpochOrder:
    """Shards are shuffled, then the blocks of every SHUFFLE_SHARDS of them together.

    A block, `block` consecutive records that stay together, belongs to the shard in which it begins.
    """

    def __init__(self, shard_sizes: tuple[int, ...], block: int, name: str) -> None:
        self.block, self.name = block, name
        edges = -(-np.cumsum((0, *shard_sizes)) // block)
        shards = self._shards = _numbers(name).permutation(len(shard_sizes))
        self._first, self._count = edges[:-1][shards], np.diff(edges)[shards]  # blocks of each shard, as shuffled
        sizes = np.add.reduceat(self._count, np.arange(0, len(shards), SHUFFLE_SHARDS))
        self._ends = np.cumsum(sizes * block)
        self._window = lru_cache(maxsize=KEPT)(self._mixed)

    def records(self, places: np.ndarray) -> np.ndarray:
        """The records (N,) int64 at `places` (N,) of the epoch, which are increasing."""
        windows = np.searchsorted(self._ends, places, side="right")
        parts = [
            self._window(number)[places[windows == number] - (self._ends[number - 1] if number else 0)]
            for number in np.unique(windows).tolist()
        ]
        return np.concatenate(parts)

    def window(self, place: int) -> int:
        """The window that holds a place of the epoch."""
        return int(np.searchsorted(self._ends, place, side="right"))

    def shards(self, window: int) -> list[int]:
        """Those of a window; none behind the last one."""
        found: list[int] = self._shards[window * SHUFFLE_SHARDS : (window + 1) * SHUFFLE_SHARDS].tolist()
        return found

    def _mixed(self, number: int) -> np.ndarray:
        """The records of a window in their order."""
        here = slice(number * SHUFFLE_SHARDS, (number + 1) * SHUFFLE_SHARDS)
        runs = zip(self._first[here].tolist(), self._count[here].tolist(), strict=True)
        blocks = np.concatenate([np.arange(first, first + count) for first, count in runs])
        mixed = _numbers(f"{self.name}/{number}").permutation(blocks)
        return (self.block * mixed[:, None] + np.arange(self.block)).reshape(-1)


def _numbers(name: str) -> np.random.Generator:
    return np.random.default_rng(text_key(name) & (2**64 - 1))
