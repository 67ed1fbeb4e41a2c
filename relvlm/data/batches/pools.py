"""Pools: images of a step whose texts and views are each other's hard negatives, and the numbers that draw them.

A pool is a run of images of the *global* batch. It lies on one rank and in one chunk, so what ITM draws depends neither
on the number of ranks nor on that of chunks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np

from relvlm.config.schema import DataConfig, DatasetConfig
from relvlm.data.text import text_key
from relvlm.errors import UserError
from relvlm.kinds import BatchKind, datasets_of


class ImagePools(NamedTuple):
    """The pool of each image (B,), counted over the global batch; `key` names the step's random numbers."""

    of_image: Sequence[int]
    key: str

    def draws(self, groups: Sequence[tuple[BatchKind, int]]) -> np.ndarray:
        """Two uniform numbers for each group, (G, 2) float32; `groups` are (kind of section, image), images in order.

        A pool's are the same whatever else is in the batch.
        """
        runs = groupby((kind, self.of_image[image]) for kind, image in groups)
        drawn = [uniform(f"{self.key}/{kind}/{pool}", len(list(run))) for (kind, pool), run in runs]
        return np.concatenate([np.empty((0, 2), np.float32), *drawn])


def uniform(key: str, groups: int) -> np.ndarray:
    """(groups, 2) float32 in [0, 1), of a counter-based generator: the same on every machine."""
    bits = np.random.Philox(key=text_key(key) & (2**64 - 1))
    return np.random.Generator(bits).random((groups, 2), np.float32)


class Dealing(NamedTuple):
    """How the `images` of a step are dealt to ranks and chunks: in whole pools, which are whole blocks.

    `pool`: images of a pool at most, None where a kind draws no negatives: then every block is dealt by itself.
    """

    kind: BatchKind
    images: int
    block: int
    pool: int | None

    @property
    def edges(self) -> list[int]:
        """Where pools begin and end, (pools + 1,): as few as may be, of nearly equal numbers of blocks."""
        blocks = self.images // self.block
        pools = -(-blocks // max((self.pool or 0) // self.block, 1))
        return [self.block * (blocks * place // pools) for place in range(pools + 1)]

    def faults(self, ranks: int, chunks: int) -> Iterator[str]:
        """Why so many ranks and chunks cannot share it alike, and how many could."""
        if self.images % self.block:
            yield (
                f"data.batch.{self.kind}: {self.images} images are no multiple of the {self.block} that "
                f"data.{datasets_of(self.kind)}[].block keeps together (take a multiple)"
            )
            return
        pools = len(self.edges) - 1
        fitting = math.gcd(pools, self.images // self.block)
        if fitting % ranks:
            yield self._unshared(ranks, [n for n in range(1, fitting + 1) if fitting % n == 0])
        elif pools // ranks < chunks:
            unit, field = (
                ("blocks", "larger data.batch") if self.pool is None else ("pools", "smaller data.negative_pool")
            )
            yield (
                f"accumulate: {chunks} chunks are more than a rank has {unit} of one {self.kind} batch "
                f"(take at most {pools // ranks}, or a {field}.{self.kind})"
            )

    def _unshared(self, ranks: int, fitting: list[int]) -> str:
        if self.pool is None:
            field, parts = "data.batch", f"blocks of {self.block}"
        else:
            field, parts = "data.negative_pool", f"pools of at most {self.pool}"
        whole = self.pool is not None and not self.images % (ranks * self.block)
        remedy = f"set it to {self.images // ranks}" if whole else f"take another data.batch.{self.kind}"
        return (
            f"{field}.{self.kind}: {self.images} images in {parts} cannot be dealt to {ranks} ranks "
            f"(numbers of ranks that fit: {', '.join(map(str, fitting))}; or {remedy})"
        )


def dealing_of(data: DataConfig, kind: BatchKind, dataset: DatasetConfig) -> Dealing:
    """How a dataset's batches of one kind are dealt; raises UserError where images do not come out whole."""
    return Dealing(kind, _images(data, kind), dataset.block, getattr(data.negative_pool, kind, None))


def check_ranks(data: DataConfig, ranks: int, chunks: int = 1) -> None:
    """Raise UserError, with a line for each kind of batch that so many ranks and chunks cannot share."""
    dealings = [dealing_of(data, kind, dataset) for kind in data.drawn for dataset in getattr(data, datasets_of(kind))]
    faults = [fault for dealing in dealings for fault in dealing.faults(ranks, chunks)]
    if faults:
        raise UserError("\n".join(dict.fromkeys(faults)))


def _images(data: DataConfig, kind: BatchKind) -> int:
    """Images of a global batch."""
    count: int = getattr(data.batch, kind)
    if kind != "entities":
        return count
    if count % data.regions_per_image:
        raise UserError(
            f"data.batch.entities: {count} regions are no multiple of data.regions_per_image {data.regions_per_image}"
        )
    return count // data.regions_per_image
