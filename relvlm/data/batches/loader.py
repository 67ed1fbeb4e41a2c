"""Batches for training: the plan's samples, read, augmented and packed, by worker processes if asked.

A sample that cannot be read or used is logged, counted and replaced by another of its dataset; too many end
the run. The batches of a run do not depend on the number of workers, nor its samples on that of chunks.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
from collections.abc import Iterator
from functools import cached_property
from itertools import pairwise
from random import Random
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from relvlm.config.schema import DataConfig, DatasetConfig, LowResolutionConfig
from relvlm.data.batches.batch import Batch, View, assemble
from relvlm.data.batches.pools import ImagePools, check_ranks, dealing_of
from relvlm.data.batches.regions import read_relations
from relvlm.data.batches.sampler import BatchPlan, StepPlan, Stream
from relvlm.data.batches.views import Unusable, ViewBuilder
from relvlm.data.batches.worker_signs import WorkerSigns
from relvlm.data.shards.store import DataFault, Record, ShardSet
from relvlm.data.text import Tokenizer, text_key
from relvlm.errors import UserError
from relvlm.kinds import BATCH_KINDS, BatchKind, datasets_of
from relvlm_kernels.malloc import keep_freed_memory

COUNTS = ("faults", "unusable", "truncated_texts", "cut_captions", "dropped_triplets", "unknown_predicates")
ATTEMPTS = 1000  # draws for one place in a batch before the dataset is given up
FULL_SIZE = LowResolutionConfig()
_log = logging.getLogger(__name__)


class StepDataset(Dataset[list[Batch] | UserError]):
    """StepPlan -> chunks. An error that ends the run is returned: torch would bury it in a traceback.

    `counts` (workers, len(COUNTS)) lies in shared memory, one row for each worker.
    """

    def __init__(
        self,
        config: DataConfig,
        streams: list[Stream],
        sets: list[ShardSet],
        image_size: int,
        patch_size: int,
        seed: int,
        low_resolution: LowResolutionConfig,
        accumulate: int,
        data_offset: int = 0,
    ) -> None:
        self.config, self.streams, self.sets = config, streams, sets
        self.image_size, self.patch_size, self.seed = image_size, patch_size, seed
        self.low_resolution, self.accumulate, self.data_offset = low_resolution, accumulate, data_offset
        self.counts = torch.zeros(max(1, config.workers), len(COUNTS), dtype=torch.int64).share_memory_()
        self.signs = WorkerSigns(config.workers)
        self.bad: set[tuple[int, int]] = set()

    @cached_property
    def builder(self) -> ViewBuilder:
        """Made on first use, which is in the worker."""
        keep_freed_memory()  # or every image begins in pages that the kernel has to zero
        relations = read_relations(self.config.relations_file) if "mrc" in self.config.trained else {}
        tokenizer = Tokenizer(self.config.vocab_file)
        return ViewBuilder(self.config, self.image_size, self.patch_size, tokenizer, relations)

    def __getitem__(self, plan: StepPlan) -> list[Batch] | UserError:
        worker = get_worker_info()
        if worker is None:
            return self._chunks(plan)
        with self.signs.reading(worker.id, plan.step - self.data_offset):
            return self._chunks(plan)

    def _chunks(self, plan: StepPlan) -> list[Batch] | UserError:
        low = plan.step - self.data_offset < self.low_resolution.steps
        self.builder.resize(self.low_resolution.image_size if low else self.image_size)
        pairs = zip(plan.epoch.tolist(), plan.index.tolist(), strict=True)
        try:
            views = [self._view(plan.stream, epoch, index) for epoch, index in pairs]
        except UserError as error:
            return error
        finally:
            self._publish()
        stream, name = self.streams[plan.stream], self.sets[plan.stream].path.name
        joint: dict[Any, float] = dataclasses.asdict(self.config.joint_weights)
        weights = joint if stream.kind == "joint" else None
        key = f"{self.seed}/{plan.step}"
        return [
            assemble(
                stream.kind, name, views[run], self.builder.grid, weights, ImagePools(plan.pool[run].tolist(), key)
            )
            for run in _runs(plan.pool, self.accumulate)
        ]

    def _view(self, stream: int, epoch: int, index: int) -> View:
        """The sample's view, or that of a substitute, which the arguments and the seed fix.

        A sample that lacks what the kind needs is merely counted, a faulty one also logged and limited in number.
        """
        kind, shards = self.streams[stream].kind, self.sets[stream]
        for attempt in range(ATTEMPTS):
            rng = Random(text_key(f"{self.seed}/{self.streams[stream].name}/{epoch}/{index}/{attempt}"))
            chosen = rng.randrange(self.streams[stream].size) if attempt else index
            try:
                view = self._build(kind, shards.read(chosen), rng)
                return dataclasses.replace(view, sample=text_key(f"{self.streams[stream].name}/{epoch}/{chosen}"))
            except Unusable as error:
                reason = str(error)
                self.builder.counts["unusable"] += 1
            except DataFault as fault:
                reason = str(fault)
                self._record(stream, chosen, fault)
        raise UserError(
            f"{shards.path}: {ATTEMPTS} samples in a row are of no use for {kind} batches; the last: {reason} "
            f"(run: relvlm data stats {shards.path})"
        )

    def _build(self, kind: BatchKind, record: Record, rng: Random) -> View:
        try:
            return self.builder.view(kind, record, rng)
        except Unusable:
            raise
        except ValueError as error:
            raise DataFault(record.shard, record.key, str(error)) from error

    def _record(self, stream: int, index: int, fault: DataFault) -> None:
        """Log a fault met for the first time; raises UserError where there are too many different ones."""
        if (stream, index) in self.bad:
            return
        self.bad.add((stream, index))
        path = self.sets[stream].path
        _log.warning("%s: %s (another sample takes its place; fault %d)", path, fault, len(self.bad))
        if len(self.bad) > self.config.max_faults:
            raise UserError(
                f"{path}: {len(self.bad)} faulty samples, data.max_faults is {self.config.max_faults}; "
                f"the last: {fault} (run: relvlm data lint {path})"
            )

    def _publish(self) -> None:
        worker = get_worker_info()
        seen = self.builder.counts
        values = {**seen, "faults": len(self.bad), "truncated_texts": self.builder.tokenizer.truncated}
        row = torch.tensor([values.get(name, 0) for name in COUNTS])
        self.counts[worker.id if worker else 0] = row


class Loader(Iterator[list[Batch]]):
    """The endless batches of one rank, each in its chunks; `counts()` tells what was left out so far."""

    def __init__(self, dataset: StepDataset, plan: BatchPlan) -> None:
        self._dataset = dataset
        workers = dataset.config.workers
        self._batches = iter(
            DataLoader(
                dataset,
                batch_size=None,
                sampler=plan,
                num_workers=workers,
                pin_memory=torch.cuda.is_available(),
                worker_init_fn=dataset.signs.begin,
                generator=torch.Generator(),  # or torch would draw from the model's random numbers
            )
        )

    @property
    def signs(self) -> WorkerSigns:
        """What its workers say of themselves; a wait for one of them has no end of its own."""
        return self._dataset.signs

    def __next__(self) -> list[Batch]:
        chunks = next(self._batches)
        if isinstance(chunks, UserError):
            raise chunks
        return chunks

    def counts(self) -> dict[str, int]:
        """Faulty samples (each once per worker), unusable ones, texts cut, triplets and predicates left out."""
        return dict(zip(COUNTS, self._dataset.counts.sum(0).tolist(), strict=True))


@contextlib.contextmanager
def dead_workers_named() -> Iterator[None]:
    """A UserError in the place of torch's RuntimeError, which comes at any moment after a worker has died."""
    try:
        yield
    except (RuntimeError, ConnectionError, EOFError) as error:
        word = str(error if isinstance(error, RuntimeError) else _word_of_torch(error))
        if not word.startswith("DataLoader worker"):
            raise
        died = word.splitlines()[0].removeprefix("DataLoader").strip()
        raise UserError(f"data.workers: loader {died} (out of memory? take fewer workers)") from error


def _word_of_torch(error: Exception) -> Exception:
    """Its RuntimeError for a dead worker, which a signal brings: the end of a connection to one may be seen before."""
    try:
        time.sleep(1.0)
    except RuntimeError as word:
        return word
    return error


def build_loader(
    config: DataConfig,
    streams: list[Stream],
    sets: list[ShardSet],
    *,
    image_size: int,
    patch_size: int,
    seed: int,
    start_step: int = 0,
    rank: int = 0,
    world_size: int = 1,
    low_resolution: LowResolutionConfig = FULL_SIZE,
    accumulate: int = 1,
    data_offset: int = 0,
) -> Loader:
    """The batches of `rank` from `start_step` on, each as `accumulate` chunks of nearly as many images.

    `streams` and `sets` are those that `open_streams` gives, here or on another rank: no shard is looked at.
    The images are smaller in the first steps, if so asked. The samples are those of `data_offset` steps later.

    Raises UserError, before any work, for a missing vocabulary, or a batch that cannot be shared.
    """
    Tokenizer(config.vocab_file)
    if "mrc" in config.trained:
        read_relations(config.relations_file)
    check_ranks(config, world_size, accumulate)
    plan = BatchPlan(streams, seed, start_step + data_offset, rank, world_size)
    dataset = StepDataset(config, streams, sets, image_size, patch_size, seed, low_resolution, accumulate, data_offset)
    return Loader(dataset, plan)


def open_streams(config: DataConfig) -> tuple[list[Stream], list[ShardSet]]:
    """A stream and its shard set for each dataset of each kind that is drawn; kinds share the shard sets."""
    streams, sets = [], []
    opened: dict[str, ShardSet] = {}
    for kind in BATCH_KINDS:
        ratio = getattr(config.ratio, kind)
        section = datasets_of(kind)
        datasets: list[DatasetConfig] = getattr(config, section)
        if ratio <= 0:
            continue
        total = sum(d.weight for d in datasets)
        if total <= 0:
            raise UserError(f"data.{section}: no dataset of positive weight, but data.ratio.{kind} is {ratio}")
        for i, dataset in enumerate(datasets):
            if dataset.path not in opened:
                opened[dataset.path] = _open_set(dataset.path, f"data.{section}[{i}].path")
            shards = opened[dataset.path]
            sizes = tuple(entry.samples for entry in shards.shards)
            probability = ratio * dataset.weight / total
            deal = dealing_of(config, kind, dataset)
            streams.append(Stream(kind, f"{kind}/{i}", sizes, deal.images, probability, deal.block, deal.pool))
            sets.append(shards)
    return streams, sets


def _open_set(path: str, field: str) -> ShardSet:
    try:
        shards = ShardSet(path)
    except UserError as error:
        raise UserError(f"{field}: {error}") from error
    if not len(shards):
        raise UserError(f"{field}: {path} holds no sample")
    return shards


def _runs(pool: np.ndarray, chunks: int) -> list[slice]:
    """Nearly equal runs of a rank's images, whose pools (B,) stay whole."""
    starts = [*np.flatnonzero(np.diff(pool, prepend=-1)).tolist(), len(pool)]
    edges = [starts[(len(starts) - 1) * chunk // chunks] for chunk in range(chunks + 1)]
    return [slice(*edge) for edge in pairwise(edges)]
