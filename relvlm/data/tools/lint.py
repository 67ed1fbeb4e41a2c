"""Is a shard set sound? Checksums, schema, decodable images, sizes, duplicates, empty texts; by several processes."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import NamedTuple

from tqdm import tqdm

from relvlm.data.json_keys import loads_unique
from relvlm.data.shards.manifest import MANIFEST, check_size, read_manifest, shard_entries
from relvlm.data.shards.schema import Sample
from relvlm.data.shards.store import DataFault, ShardSet
from relvlm.data.sources.workers import end_with
from relvlm.data.tools.inspect import picture
from relvlm.errors import UserError

SPAN = 256  # records that a worker inspects at a time
CHECKSUMS = None  # the task of reading every byte
SHOWN = 3  # faults of a kind in the summary
MARKS = ("key", "image_id", "image bytes")  # of which no two records may have the same


class Fault(NamedTuple):
    """What is wrong, the same for all alike, and where, in one line."""

    kind: str
    line: str


class Inspected(NamedTuple):
    """A record's place, hashes of its MARKS (none where it cannot be read), and its faults."""

    place: str
    marks: tuple[int, ...]
    faults: list[Fault]


def lint(folder: Path, sample: int | None = None, processes: int = 1) -> Iterator[Fault]:
    """Every fault of the set; reads and decodes everything, or `sample` records. UserError if there is no manifest.

    Shards that are missing or of a wrong size end the search: positions in such a set mean nothing. With `sample`,
    records are drawn by chance, the same each time, and no checksum is computed.
    """
    torn = [Fault("torn shard", line) for line in _size_faults(folder)]
    yield from torn or _content_faults(folder, sample, processes)


def _size_faults(folder: Path) -> Iterator[str]:
    for entry in shard_entries(folder / MANIFEST, read_manifest(folder)):
        try:
            check_size(folder / entry.name, entry)
        except UserError as error:
            yield str(error)


def _content_faults(folder: Path, sample: int | None, processes: int) -> Iterator[Fault]:
    count = len(ShardSet(folder))
    indices: Sequence[int] = range(count)
    if sample is not None and sample < count:
        indices = sorted(Random(0).sample(indices, sample))
    tasks: list[Sequence[int] | None] = [] if sample is not None else [CHECKSUMS]
    tasks += [indices[start : start + SPAN] for start in range(0, len(indices), SPAN)]
    seen: list[dict[int, str]] = [{} for _ in MARKS]
    with _mapped(folder, tasks, processes) as found:
        for part in tqdm(found, desc=str(folder), unit=f" x {SPAN} images", total=len(tasks), disable=None):
            for record in part:
                yield from _duplicates(record, seen)
                yield from record.faults


@contextmanager
def _mapped(folder: Path, tasks: list[Sequence[int] | None], processes: int) -> Iterator[Iterable[list[Inspected]]]:
    """`_inspect` of each task, in their order."""
    if processes == 1:
        _open(folder)
        yield map(_inspect, tasks)
        return
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(processes, context, _open, (folder, os.getpid())) as pool:
        try:
            yield pool.map(_inspect, tasks)
        except BrokenProcessPool as error:
            raise UserError(f"{folder}: a process ended by itself (out of memory? fewer --processes)") from error


_shards: ShardSet | None = None


def _open(folder: Path, parent: int | None = None) -> None:
    global _shards
    _shards = ShardSet(folder)
    if parent is not None:
        end_with(parent)


def _inspect(indices: Sequence[int] | None) -> list[Inspected]:
    assert _shards is not None
    if indices is CHECKSUMS:
        faults = [Fault("checksum or count", line) for line in _shards.verify()]
        return [Inspected("", (), faults)]
    return [inspect_record(_shards, index) for index in indices]


def inspect_record(shards: ShardSet, index: int) -> Inspected:
    """What is wrong with a record by itself."""
    try:
        record = shards.read(index, loads_unique)
    except DataFault as fault:
        return Inspected("", (), [_fault(fault)])
    place = f"{record.shard}: {record.key}"
    faults = [Fault(what, f"{place}: {what}") for what in _empty_texts(record.sample)]
    try:
        picture(record)
    except DataFault as fault:
        faults.append(_fault(fault))
    marks = record.key.encode(), record.sample.image_id.encode(), record.image
    hashes = (hashlib.blake2b(mark, digest_size=8).digest() for mark in marks)
    return Inspected(place, tuple(int.from_bytes(h, "little") for h in hashes), faults)


def _fault(fault: DataFault) -> Fault:
    """Of a kind that is told by the first words of the reason, without their numbers."""
    return Fault(re.sub(r"\d+", "n", ": ".join(fault.reason.split(": ")[:2])), str(fault))


def _empty_texts(sample: Sample) -> Iterator[str]:
    texts: dict[str, Iterable[str]] = {
        "captions": sample.captions,
        "entities.label": [e.label for e in sample.entities],
        "relations.predicate": [r.predicate for r in sample.relations],
    }
    yield from (f"{field}: empty text" for field, values in texts.items() if any(not v.strip() for v in values))


def _duplicates(record: Inspected, seen: list[dict[int, str]]) -> Iterator[Fault]:
    """Keys, image ids and image bytes that came before; `seen` remembers where."""
    for what, mark, places in zip(MARKS, record.marks, seen, strict=False):
        first = places.setdefault(mark, record.place)
        if first is not record.place:
            yield Fault(f"same {what}", f"{record.place}: same {what} as {first}")


def summary(faults: Iterable[Fault]) -> tuple[int, list[str]]:
    """How many there are, and lines: the kinds with their counts, the most frequent first, and the first of each."""
    counts: Counter[str] = Counter()
    first: dict[str, list[str]] = {}
    for kind, line in faults:
        counts[kind] += 1
        if counts[kind] <= SHOWN:
            first.setdefault(kind, []).append(line)
    lines = []
    for kind, count in counts.most_common():
        lines += [f"{count:>8,}  {kind}", *(f"          {line}" for line in first[kind])]
        lines += [f"          ... and {count - SHOWN:,} more"] if count > SHOWN else []
    return counts.total(), lines
