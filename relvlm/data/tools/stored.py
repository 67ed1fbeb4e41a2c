"""Shard sets as sources: a copy of one is a build, with its processes, its journal and its limit of faults."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from relvlm.data.shards.address import Place
from relvlm.data.shards.manifest import MANIFEST
from relvlm.data.shards.store import DataFault, Record, ShardSet
from relvlm.data.sources.building import report
from relvlm.data.sources.driver import Driver, Options
from relvlm.data.sources.faults import Faults, RecordFault
from relvlm.data.sources.item import Item, Source
from relvlm.data.sources.meter import Meter
from relvlm.data.sources.raw import PhotoFault
from relvlm.data.sources.spool import SeenNames


class StoredPhoto(NamedTuple):
    """The photo of record `number` of the set in `folder`."""

    name: str
    folder: Place
    number: int

    def is_there(self) -> bool:
        return True

    def read(self) -> bytes:
        try:
            return opened(self.folder).read(self.number).image
        except DataFault as fault:
            raise PhotoFault(self.name, "cannot be read", fault.reason) from fault


@lru_cache(maxsize=8)
def opened(folder: Place) -> ShardSet:
    """The set, opened once a process."""
    return ShardSet(folder)


@dataclass(frozen=True)
class StoredSets:
    """What is the same for every source that reads shard sets; photos are those of the first."""

    folders: tuple[Place, ...]
    hint: str = "run: relvlm data lint"

    def files(self) -> Sequence[Path]:
        return [file for folder in self.folders if isinstance(file := folder / MANIFEST, Path)]

    def places(self) -> str:
        return ", ".join(map(str, self.folders))

    def records(self, faults: Faults, meter: Meter) -> Iterator[tuple[Record, Item]]:
        """Every sound record of the first set, and the item that it is if it stays as it is.

        Of two with one key, the second is a fault: positions in shards change, keys remain.
        """
        folder = self.folders[0]
        shards, keys = ShardSet(folder), SeenNames()
        meter.total = len(shards)
        for index, record in sound_records(shards, faults):
            meter.done = index + 1
            if not keys.add(record.key):
                repeated(faults, record, f"same key as a record before: {record.key}")
                continue
            yield (
                record,
                Item(record.sample.image_id, record.key, StoredPhoto(record.key, folder, index), record.sample),
            )


def sound_records(shards: ShardSet, faults: Faults) -> Iterator[tuple[int, Record]]:
    """The records that can be read, numbered; the others are counted and listed."""
    for index in range(len(shards)):
        faults.read["image"] += 1
        try:
            record = shards.read(index)
        except DataFault as fault:
            faults.add("image", f"{fault.shard}: {fault.key}", RecordFault("damaged", fault.reason))
        else:
            yield index, record


def repeated(faults: Faults, record: Record, detail: str) -> None:
    """Count a record that was there before."""
    faults.add("image", f"{record.shard}: {record.key}", RecordFault("repeated", detail))


def copy_and_report(source: Source, args: argparse.Namespace) -> int:
    """Write the copy to `args.out` as the flags of `add_driver_arguments` say; returns the exit status."""
    faults = Faults(source.name, args.max_faults)
    options = Options(shard_size=args.shard_size, processes=args.processes)
    manifest, skipped = Driver(source, faults, options).build(args.out)
    report(args.out, manifest, skipped, faults)
    return 0
