"""From a source to a shard set: which images, in which shards, by which processes; what is left out, and why."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from itertools import count, islice
from pathlib import Path
from typing import Any

from relvlm.data.image_ids import DATASETS, ImageList, image_id
from relvlm.data.shards.manifest import MANIFEST, ShardEntry, Tally, make_manifest
from relvlm.data.shards.store import LOG, RELATIONS, SKIPPED, write_lines
from relvlm.data.sources.faults import LISTED, Faults, one_line
from relvlm.data.sources.item import Item, Source
from relvlm.data.sources.lookalike import Lookalikes
from relvlm.data.sources.meter import Meter, Progress
from relvlm.data.sources.raw import NoPhoto
from relvlm.data.sources.shard_task import JOURNAL, Maker, count_photo, write_whole
from relvlm.data.sources.spool import Spooling
from relvlm.data.sources.unfinished import complete, unfinished
from relvlm.data.sources.workers import Task, made_shards
from relvlm.errors import UserError

EARLY = 10_000  # records after which too many faults end a build at once
PROGRESS, SPOOL = "progress.log", "spool"  # in the journal


@dataclass(frozen=True)
class Options:
    """What is the same for every source. `exclude` must name an image of the source, `overlap` need not."""

    shard_size: int = 1000
    processes: int = 1
    max_side: int | None = None
    exclude: Collection[str | int] = ()
    overlap: Collection[str | int] = ()
    lookalikes: Lookalikes | None = None
    relations: tuple[str, ...] = ()  # of `relations.txt`; without any, those that were found
    unlike: tuple[str, ...] = ()  # the folders that these were read from


class Driver:
    """One build. Its memory is that of a few shards, whatever the source's size."""

    def __init__(self, source: Source, faults: Faults, options: Options) -> None:
        self.source, self.faults, self.options = source, faults, options
        dataset = DATASETS.get(source.name, source.name)
        self.excluded, self.overlap = ImageList(options.exclude, dataset), ImageList(options.overlap, dataset)
        self.tally, self.meter = Tally(), Meter()
        self.entries: list[ShardEntry] = []
        self.made = Faults(source.name, faults.max_share)  # of the shards; `faults` are those of the items
        self.missing: dict[int, list[str]] = {}  # by shard: photos that are not there, found on the way to its items
        self.skipped = 0
        self.first_skipped = ""

    def build(self, out: Path) -> tuple[dict[str, Any], int]:
        """The manifest, and how many photos were left out; they are listed in `skipped.txt`."""
        with unfinished(Path(out), self._identity()) as folder:
            manifest = complete(folder)
            if manifest is None:
                if isinstance(self.source, Spooling):
                    self.source = replace(self.source, spool=folder / JOURNAL / SPOOL)
                self._write_shards(folder)
                self._check()
                manifest = self._finish(folder)
        return manifest, self.skipped

    def _identity(self) -> dict[str, Any]:
        files = {str(f): [s.st_size, s.st_mtime_ns] for f in self.source.files() if f.exists() and (s := f.stat())}
        options = self.options
        leaves_out = [sorted(map(str, options.exclude)), sorted(map(str, options.overlap))]
        test_photos = options.lookalikes.hashes if options.lookalikes else []
        chosen = {
            "shard_size": options.shard_size,
            "max_side": options.max_side,
            "leaves out": leaves_out,
            "unlike": [list(options.unlike), test_photos],
            "relations": list(options.relations),
            "places": self.source.places(),  # all that is known of a set at an address
        }
        return {"source": self.source.name, "files": files, **chosen, "arguments": self.source.arguments()}

    def _write_shards(self, folder: Path) -> None:
        options = self.options
        maker = Maker(self.source, folder, options.max_side, self.faults.max_share, options.lookalikes)
        progress = Progress(folder / JOURNAL / PROGRESS, self.source.name, self.meter)
        log = folder / JOURNAL / SKIPPED
        log.write_bytes(b"")
        tasks = self._tasks()
        for number, (entry, made_before) in enumerate(made_shards(maker, tasks, options.processes)):
            self._list(log, [*self.missing.pop(number), *entry["skipped"]])
            self._include(entry)
            progress.add(entry["images"], made_before=made_before)
        for lines in self.missing.values():
            self._list(log, lines)
        self.faults.include(self.made.to_json())
        progress.close()

    def _tasks(self) -> Iterator[Task]:
        wanted = self._wanted()
        for number in count():
            self.missing[number] = []
            if not (items := list(islice(wanted, self.options.shard_size))):
                return
            yield number, items

    def _wanted(self) -> Iterator[Item]:
        """Items that are not excluded and whose photo is there: a shard holds `shard_size` of them."""
        for item in self.source.items(self.faults, self.meter):
            if self.excluded.has(item.image_id, item.photo.name) | self._is_test_image(item):
                continue
            self.faults.read["photo"] += 1
            if item.photo.is_there():
                yield item
                continue
            fault = NoPhoto(item.photo.name, "no such photo")
            count_photo(fault, self.faults)
            self.missing[max(self.missing)].append(str(fault))

    def _is_test_image(self, item: Item) -> bool:
        """By its id or, as ids of any photos tell no dataset, by a file's name that does: val2014/42.jpg is COCO's."""
        if not self.overlap.names:
            return False
        name = item.photo.name
        return self.overlap.has(item.image_id) or (image_id(name).dataset != "" and self.overlap.has(name))

    def _include(self, entry: dict[str, Any]) -> None:
        self.tally.include(entry["tally"])
        self.made.include(entry["faults"])
        if entry["shard"]:
            self.entries.append(ShardEntry(**entry["shard"]))
        both = Faults(self.source.name, self.faults.max_share)
        for part in (self.faults, self.made):
            both.include({**part.to_json(), "lines": part.lines[:LISTED]})
        both.check([kind for kind, read in both.read.items() if read >= EARLY])

    def _list(self, log: Path, lines: list[str]) -> None:
        if lines:
            self.first_skipped = self.first_skipped or lines[0]
            self.skipped += len(lines)
            with log.open("a", encoding="utf-8", errors="backslashreplace") as stream:
                stream.writelines(one_line(line) + "\n" for line in lines)

    def _check(self) -> None:
        warning = self.excluded.check("--exclude", self.source.name)
        self.faults.notes += [f"warning: {warning}"] if warning else []
        photos = self.faults.read["photo"]
        if photos and self.skipped == photos:
            raise UserError(
                f"{self.source.places() or 'no folder given'}: none of the {photos} photos can be used, first: "
                f"{self.first_skipped} ({self.source.hint})"
            )
        self.faults.check()
        if not self.entries:
            raise UserError(f"{self.source.name}: no samples to write (check the builder's input)")

    def _finish(self, folder: Path) -> dict[str, Any]:
        """Write what lies beside the shards, the manifest last: it says that the rest is there."""
        options = self.options
        chosen: dict[str, Any] = {"excluded": self.excluded.counts(), "max_side": options.max_side}
        if options.overlap:
            chosen["overlap"] = self.overlap.counts()
        if options.unlike:
            chosen["unlike"] = [Path(folder).name for folder in options.unlike]
        chosen |= {"shard_size": options.shard_size, "max_faults": self.faults.max_share}
        arguments = {**self.source.arguments(), **chosen}
        manifest = make_manifest(self.entries, self.tally, source=self.source.name, builder_args=arguments)
        write_lines(folder / RELATIONS, list(options.relations) or sorted(self.tally.predicates))
        write_lines(folder / LOG, self.faults.log())
        if self.skipped:
            (folder / JOURNAL / SKIPPED).rename(folder / SKIPPED)
        write_whole(folder / MANIFEST, json.dumps(manifest, indent=2) + "\n")
        return manifest
