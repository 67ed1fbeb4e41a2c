"""The plan: which samples of which dataset make up each step, as a function of (seed, step) alone.

Nothing is remembered between steps, so resuming needs the step number only, and neither the number of ranks
nor that of workers changes what a run sees.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from torch.utils.data import Sampler

from relvlm.data.batches.order import EpochOrder
from relvlm.data.batches.pools import Dealing
from relvlm.data.text import text_key
from relvlm.errors import UserError
from relvlm.kinds import BatchKind

_CHUNK = 1024


@dataclass(frozen=True)
class Stream:
    """A dataset as one kind of batch draws from it, `images` a step over all ranks."""

    kind: BatchKind
    name: str  # names the stream's random numbers: another name, another order
    shard_sizes: tuple[int, ...]
    images: int
    probability: float
    block: int = 1
    pool: int | None = None  # images of a pool at most; None: of a kind without negatives

    @property
    def dealing(self) -> Dealing:
        """How a step's images are dealt to ranks."""
        return Dealing(self.kind, self.images, self.block, self.pool)

    @property
    def size(self) -> int:
        """Samples in an epoch."""
        return sum(self.shard_sizes)


@dataclass(frozen=True)
class StepPlan:
    """One rank's samples of a step: record `index[i]` as it is augmented in `epoch[i]`, in pool `pool[i]` of all.

    `position` counts what all ranks have drawn of the stream before it.
    """

    step: int
    stream: int
    position: int
    epoch: np.ndarray = field(repr=False)  # (B,) int64
    index: np.ndarray = field(repr=False)  # (B,) int64
    pool: np.ndarray = field(repr=False)  # (B,) int64, increasing


def draw_streams(probabilities: Sequence[float], seed: int, first: int, last: int) -> np.ndarray:
    """The stream of each step in [first, last): (last - first,) int64, drawn by `probabilities`."""
    edges = np.cumsum(probabilities)
    draws = _uniform(seed, np.arange(first, last, dtype=np.uint64))
    return np.minimum(np.searchsorted(edges, draws * edges[-1], side="right"), len(edges) - 1)


def _uniform(seed: int, step: np.ndarray) -> np.ndarray:
    """Hashes of (seed, step) in [0, 1): splitmix64, vectorised."""
    z = step * np.uint64(0x9E3779B97F4A7C15) + np.uint64(text_key(f"steps of {seed}") & (2**64 - 1))
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((z ^ (z >> np.uint64(31))) >> np.uint64(11)) * 2.0**-53


class BatchPlan(Sampler[StepPlan]):
    """The endless sequence of a rank's StepPlans from `start_step` on."""

    def __init__(
        self,
        streams: Sequence[Stream],
        seed: int,
        start_step: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        """Raises UserError where a global batch cannot be divided among the ranks."""
        for stream in streams:
            _check(stream, world_size)
        self.streams = tuple(streams)
        self.seed, self.start_step = seed, start_step
        self.rank, self.world_size = rank, world_size
        self._order = lru_cache(maxsize=2 * len(streams))(self._epoch_order)

    def __iter__(self) -> Iterator[StepPlan]:
        probabilities = [s.probability for s in self.streams]
        drawn = self.drawn_before()
        step = self.start_step
        while True:
            for stream in draw_streams(probabilities, self.seed, step, step + _CHUNK).tolist():
                yield self._plan(step, stream, drawn[stream])
                drawn[stream] += 1
                step += 1

    def drawn_before(self) -> list[int]:
        """How often each stream has been drawn before `start_step`."""
        past = draw_streams([s.probability for s in self.streams], self.seed, 0, self.start_step)
        drawn: list[int] = np.bincount(past, minlength=len(self.streams)).tolist()
        return drawn

    def windows(self, number: int, position: int) -> tuple[tuple[int, int], list[int]]:
        """(epoch, window) of a stream at `position` of all that it draws, and the shards of it and of the next one."""
        epoch, place = divmod(position, self.streams[number].size)
        order = self._order(number, epoch)
        window = order.window(place)
        following = order.shards(window + 1) or self._order(number, epoch + 1).shards(0)
        return (epoch, window), list(dict.fromkeys([*order.shards(window), *following]))

    def _plan(self, step: int, number: int, drawn: int) -> StepPlan:
        """The plan of a step whose stream has been drawn `drawn` times before."""
        stream = self.streams[number]
        # Runs of the global batch: the ranks' batches, one after another, are the same for any number of them.
        share = stream.images // self.world_size
        places = np.arange(self.rank * share, (self.rank + 1) * share)
        positions = drawn * stream.images + places
        epoch, offset = np.divmod(positions, stream.size)
        index = np.empty_like(positions)
        for value in range(int(epoch[0]), int(epoch[-1]) + 1):
            here = epoch == value
            index[here] = self._order(number, value).records(offset[here])
        pool = np.searchsorted(stream.dealing.edges, places, side="right") - 1
        return StepPlan(step, number, drawn * stream.images, epoch, index, pool)

    def _epoch_order(self, number: int, epoch: int) -> EpochOrder:
        stream = self.streams[number]
        return EpochOrder(stream.shard_sizes, stream.block, f"{self.seed}/{stream.name}/{epoch}")


def _check(stream: Stream, world_size: int) -> None:
    if stream.block < 1 or stream.size % stream.block:
        raise UserError(f"{stream.name}: block: {stream.size} samples are no multiple of {stream.block} (change it)")
    for fault in stream.dealing.faults(world_size, chunks=1):
        raise UserError(fault)
