"""Shards of the windows to come, fetched while a run reads those of the present ones.

A window is what an epoch mixes at a time (relvlm/data/batches/order.py). When a set at an address reaches one, a thread
of each rank fetches its shards and those of the next into the node's cache; what is there already is marked as used. A
fetch that fails is left to the reader, who asks again and says what is wrong.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence

from torch.utils.data import Sampler

from relvlm.config.cache import CacheConfig
from relvlm.data.batches.order import SHUFFLE_SHARDS
from relvlm.data.batches.sampler import BatchPlan, StepPlan
from relvlm.data.batches.usable import UsableRecords
from relvlm.data.shards.files import CachedFiles
from relvlm.data.shards.manifest import ShardEntry
from relvlm.data.shards.store import ShardSet

_log = logging.getLogger(__name__)


class Prefetcher:
    """Told of each step of a plan, of any of its streams."""

    def __init__(self, plan: BatchPlan, sets: Sequence[UsableRecords]) -> None:
        """`sets` has the records of each stream."""
        self._plan = plan
        self._sets = {n: each.shards for n, each in enumerate(sets) if isinstance(each.shards.files, CachedFiles)}
        self._wanted: dict[int, list[ShardEntry]] = {}
        self._reached: dict[int, tuple[int, int]] = {}
        self._change = threading.Lock()
        self._working = self._changed = False

    def reached(self, stream: int, position: int) -> None:
        """`position` of all that the stream draws is about to be read."""
        if stream not in self._sets:
            return
        window, shards = self._plan.windows(stream, position)
        if self._reached.get(stream) == window:
            return
        self._reached[stream] = window
        entries = self._sets[stream].shards
        with self._change:
            self._wanted[stream] = _turned([entries[shard] for shard in shards], self._plan.rank)
            self._changed = True
            if not self._working:
                self._working = True
                threading.Thread(target=self._work, name="prefetch", daemon=True).start()

    def _work(self) -> None:
        """Until nothing new is wanted; once more from the start where something is."""
        while True:
            with self._change:
                self._working = self._changed
                if not self._changed:
                    return
                self._changed, wanted = False, list(self._wanted.items())
            for stream, entries in wanted:
                self._fetch(self._sets[stream], entries)

    def _fetch(self, shards: ShardSet, entries: list[ShardEntry]) -> None:
        for entry in entries:
            if self._changed:
                return
            try:
                shards.files.fetch(entry)
            except Exception as error:  # whatever it is: who reads the shard meets it, and tells it with its place
                _log.info("%s: %s", shards.path, error)


def _turned(entries: list[ShardEntry], rank: int) -> list[ShardEntry]:
    """Begun at another place on each rank: those of a node share their cache, and so the work."""
    first = rank % len(entries)
    return entries[first:] + entries[:first]


class PrefetchedPlan(Sampler[StepPlan]):
    """The steps of `plan`, of each of which the prefetcher is told before it is read."""

    def __init__(self, plan: BatchPlan, prefetcher: Prefetcher) -> None:
        self.plan, self.prefetcher = plan, prefetcher

    def __iter__(self) -> Iterator[StepPlan]:
        for stream, drawn in enumerate(self.plan.drawn_before()):
            self.prefetcher.reached(stream, drawn * self.plan.streams[stream].images)
        for step in self.plan:
            self.prefetcher.reached(step.stream, step.position)
            yield step


def with_prefetch(plan: BatchPlan, sets: Sequence[UsableRecords], cache: CacheConfig) -> Sampler[StepPlan]:
    """`plan`, with a prefetcher where sets lie at an address and two windows of each fit into the cache."""
    remote = {str(each.shards.path): each.shards for each in sets if isinstance(each.shards.files, CachedFiles)}
    if not remote:
        return plan
    need = sum(_two_windows(shards, _times(shards, sets)) for shards in remote.values())
    if need > cache.max_gb * 1e9:
        _log.warning(
            "data.cache.max_gb: %g: two windows of shards of each set take %.1f GB: none is fetched ahead, and steps "
            "wait for shards (allow more)",
            *(cache.max_gb, need / 1e9),
        )
        return plan
    return PrefetchedPlan(plan, Prefetcher(plan, sets))


def _times(shards: ShardSet, sets: Sequence[UsableRecords]) -> int:
    """Streams that draw from a set, each in an order of its own."""
    return sum(str(each.shards.path) == str(shards.path) for each in sets)


def _two_windows(shards: ShardSet, streams: int) -> int:
    """Bytes at most."""
    sizes = sorted((entry.bytes for entry in shards.shards), reverse=True)
    return min(sum(sizes), streams * sum(sizes[: 2 * SHUFFLE_SHARDS]))
