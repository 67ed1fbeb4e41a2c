"""Batches for training: the plan's samples, read, augmented and packed, by worker processes if asked.

A sample that cannot be read is logged, counted and replaced by another of its dataset. The batches of a run do not
depend on the number of workers, nor its samples on that of chunks.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import chain, pairwise
from random import Random
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from relvlm.config.schema import DataConfig, LowResolutionConfig
from relvlm.data.batches.batch import LEFT_OUT, Batch, View, assemble
from relvlm.data.batches.pools import ImagePools, check_ranks
from relvlm.data.batches.prefetch import with_prefetch
from relvlm.data.batches.regions import read_relations
from relvlm.data.batches.sampler import BatchPlan, StepPlan, Stream
from relvlm.data.batches.usable import UsableRecords
from relvlm.data.batches.views import Undecoded, ViewBuilder
from relvlm.data.batches.worker_signs import WorkerSigns
from relvlm.data.shards.store import DataFault, Record
from relvlm.data.text import Tokenizer, text_key
from relvlm.errors import UserError
from relvlm_kernels.malloc import keep_freed_memory

ATTEMPTS = 1000  # draws for one place in a batch before the dataset is given up
FULL_SIZE = LowResolutionConfig()
_log = logging.getLogger(__name__)


class Candidate(NamedTuple):
    """A record for a place in a batch."""

    record: int  # its number in its set
    sample: int  # what the view of it is called
    view: Undecoded


class StepDataset(Dataset[list[Batch] | UserError]):
    """StepPlan -> chunks. An error that ends the run is returned: torch would bury it in a traceback."""

    def __init__(
        self,
        config: DataConfig,
        streams: list[Stream],
        sets: list[UsableRecords],
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
        self.signs = WorkerSigns(config.workers)
        self.bad: set[tuple[int, int]] = set()
        self.last_fault: DataFault | None = None

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
        self.builder.counts.clear()
        try:
            views = self._views(plan)
        except UserError as error:
            return error
        stream, name = self.streams[plan.stream], self.sets[plan.stream].shards.path.name
        joint: dict[Any, float] = dataclasses.asdict(self.config.joint_weights)
        weights = joint if stream.kind == "joint" else None
        key = f"{self.seed}/{plan.step}"
        first, *others = [
            assemble(
                stream.kind, name, views[run], self.builder.grid, weights, ImagePools(plan.pool[run].tolist(), key)
            )
            for run in _runs(plan.pool, self.accumulate)
        ]
        left_out = tuple(self.builder.counts[each] for each in LEFT_OUT)
        return [dataclasses.replace(first, left_out=left_out), *others]

    def _views(self, plan: StepPlan) -> list[View]:
        """Texts of all records, then photos of all: between two photos, Python's part would meet cold caches (7%)."""
        pairs = zip(plan.epoch.tolist(), plan.index.tolist(), strict=True)
        candidates = [self._candidates(plan.stream, epoch, number) for epoch, number in pairs]
        drawn = [next(each) for each in candidates]
        return [self._decoded(plan.stream, chain([first], more)) for first, more in zip(drawn, candidates, strict=True)]

    def _candidates(self, stream: int, epoch: int, number: int) -> Iterator[Candidate]:
        """A stream's usable record, then its substitutes, which the arguments and the seed fix."""
        kind, name, usable = self.streams[stream].kind, self.streams[stream].name, self.sets[stream]
        index = first = usable.index(number)
        for attempt in range(ATTEMPTS):
            rng = Random(text_key(f"{self.seed}/{name}/{epoch}/{first}/{attempt}"))
            if attempt:
                index = usable.index(rng.randrange(len(usable)))
            try:
                record = usable.read(index)
                with _faults_of(record):
                    view = self.builder.undecoded(kind, record, rng)
            except DataFault as fault:
                self._note(stream, index, fault)
            else:
                yield Candidate(index, text_key(f"{name}/{epoch}/{index}"), view)
        raise UserError(
            f"{usable.shards.path}: {ATTEMPTS} samples in a row are of no use for {kind} batches; the last: "
            f"{self.last_fault} (run: relvlm data lint {usable.shards.path})"
        )

    def _decoded(self, stream: int, candidates: Iterable[Candidate]) -> View:
        """The view of the first of them whose photo is sound; they end by an error."""
        for candidate in candidates:
            try:
                with _faults_of(candidate.view.record):
                    view = self.builder.decoded(candidate.view)
                return dataclasses.replace(view, sample=candidate.sample)
            except DataFault as fault:
                self._note(stream, candidate.record, fault)
        raise AssertionError("candidates end by an error")

    def _note(self, stream: int, index: int, fault: DataFault) -> None:
        """Count a fault; log it where this process meets it for the first time."""
        self.last_fault = fault
        self.builder.counts["faults"] += 1
        if (stream, index) not in self.bad:
            self.bad.add((stream, index))
            _log.warning("%s: %s (another sample takes its place)", self.sets[stream].shards.path, fault)


@contextlib.contextmanager
def _faults_of(record: Record) -> Iterator[None]:
    """A ValueError is a DataFault of the record."""
    try:
        yield
    except ValueError as error:
        raise DataFault(record.shard, record.key, str(error)) from error


class Loader(Iterator[list[Batch]]):
    """The endless batches of one rank, each in its chunks."""

    def __init__(self, dataset: StepDataset, plan: Sampler[StepPlan]) -> None:
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
    sets: list[UsableRecords],
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
    return Loader(dataset, with_prefetch(plan, sets, config.cache))


def _runs(pool: np.ndarray, chunks: int) -> list[slice]:
    """Nearly equal runs of a rank's images, whose pools (B,) stay whole."""
    starts = [*np.flatnonzero(np.diff(pool, prepend=-1)).tolist(), len(pool)]
    edges = [starts[(len(starts) - 1) * chunk // chunks] for chunk in range(chunks + 1)]
    return [slice(*edge) for edge in pairwise(edges)]
