"""The records of a shard set that a kind of batch can use: an epoch runs over these, and no others."""

from __future__ import annotations

from bisect import bisect_right
from functools import lru_cache
from itertools import accumulate
from typing import Any

import numpy as np

from relvlm.config.schema import JointWeights
from relvlm.data.shards.index import CAPTION, ENTITY, RELATION
from relvlm.data.shards.store import OPEN_SHARDS, Record, ShardSet
from relvlm.errors import UserError
from relvlm.kinds import SECTION_KINDS, BatchKind

NEEDS: dict[BatchKind, int] = {"captions": CAPTION, "entities": ENTITY, "mrc": RELATION, "vsg": RELATION}
WORDS = {CAPTION: "caption", ENTITY: "entity", RELATION: "relation"}


def sections_of(kind: BatchKind, weights: JointWeights) -> list[BatchKind]:
    """The kinds of groups that a batch holds: those with a weight in a joint one."""
    return [k for k in SECTION_KINDS if getattr(weights, k)] if kind == "joint" else [kind]


class UsableRecords:
    """Numbered 0, 1, ... in the set's order. `sizes` has their number in each shard.

    Cheap to pickle. Where all of a shard can be used, or the manifest's counts say how much, its index is not read.
    """

    def __init__(self, shards: ShardSet, kinds: list[BatchKind], vocabulary: np.ndarray, block: int = 1) -> None:
        """Of the records that all `kinds` can use; MRC's relations are of the `vocabulary` (V,) of hashes.

        `block` records that stay together are used together, or none of them. Raises UserError where an index is
        not the manifest's, or where shards that are used in part are no whole number of blocks.
        """
        self.shards, self.block = shards, block
        self.bits = int(np.bitwise_or.reduce([NEEDS[kind] for kind in kinds]))
        self.vocabulary = vocabulary if "mrc" in kinds else None
        self._forget()
        self.sizes = tuple(self._count(shard) for shard in range(len(shards.shards)))
        self._ends = list(accumulate(self.sizes))
        self._check_blocks()

    def __len__(self) -> int:
        return self._ends[-1]

    @property
    def needed(self) -> str:
        """`caption and relation of data.relations`, of which a record has both."""
        words = " and ".join(word for bit, word in WORDS.items() if self.bits & bit)
        return words if self.vocabulary is None else f"{words} of data.relations"

    def index(self, number: int) -> int:
        """Which record of the set it is."""
        shard = bisect_right(self._ends, number)
        place = number - (self._ends[shard - 1] if shard else 0)
        if self.sizes[shard] < self.shards.shards[shard].samples:
            place = int(self._positions(shard)[place])
        return self.shards.first(shard) + place

    def read(self, index: int) -> Record:
        """The record of that index in the set; raises DataFault where it is damaged."""
        return self.shards.read(index)

    def _count(self, shard: int) -> int:
        entry = self.shards.shards[shard]
        counts = {CAPTION: entry.captions, ENTITY: entry.entities, RELATION: entry.relations}
        having = [count for bit, count in counts.items() if self.bits & bit]
        partly = [count for count in having if count < entry.samples]
        if 0 in having or (self.vocabulary is None and not partly):
            return min(having)
        if self.vocabulary is None and self.block == len(partly) == 1:
            return partly[0]
        return len(self._positions(shard))

    def _find(self, shard: int) -> np.ndarray:
        found = self.shards.index(shard).positions(self.bits, self.vocabulary)
        samples = self.shards.shards[shard].samples
        if self.block == 1 or len(found) == samples:
            return found
        fits = np.zeros(-(-samples // self.block) * self.block, bool)
        fits[found] = True
        return np.flatnonzero(np.repeat(fits.reshape(-1, self.block).all(1), self.block))

    def _check_blocks(self) -> None:
        entries = self.shards.shards
        if self.block == 1 or all(size == entry.samples for size, entry in zip(self.sizes, entries, strict=True)):
            return
        for entry in entries:
            if entry.samples % self.block:
                raise UserError(
                    f"{self.shards.path / entry.name}: {entry.samples} records, some of no use, are no whole number of "
                    f"blocks of {self.block} (build it with another --shard-size, or set block: 1)"
                )

    def _forget(self) -> None:
        self._positions = lru_cache(maxsize=OPEN_SHARDS)(self._find)

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "_positions"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()
