"""Shard sets: folders of webdataset tars (`KEY.jpg|png` + `KEY.json`) with a `manifest.json`.

Written whole or not at all; read at random, because shuffling and resuming are functions of integers here.
Any webdataset reader can stream the same files.
"""

from __future__ import annotations

import json
import os
import shutil
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import accumulate, chain, islice
from pathlib import Path
from typing import Any

from relvlm.config.cache import CacheConfig
from relvlm.data.shards.address import Place, place_of
from relvlm.data.shards.files import files_of
from relvlm.data.shards.index import NOTHING, ODD_HEADER, REPEATED, Row, ShardIndex
from relvlm.data.shards.manifest import (
    MANIFEST,
    ShardEntry,
    Tally,
    check_indexed,
    file_sha256,
    make_manifest,
    read_manifest,
    shard_entries,
)
from relvlm.data.shards.members import IMAGE_SUFFIXES, PositionedFile, read_members, split_name
from relvlm.data.shards.schema import Sample, SchemaError
from relvlm.data.shards.shard_file import Encoded, write_shard
from relvlm.data.shards.tar_walk import scan_members
from relvlm.errors import UserError

RELATIONS = "relations.txt"
SKIPPED = "skipped.txt"
LOG = "build.log"
OPEN_SHARDS = 64  # file descriptors that one reader keeps
DEFAULT_CACHE = CacheConfig()


class DataFault(Exception):
    """One sample that cannot be read; `shard`, `key` and `reason` say which and why."""

    def __init__(self, shard: str, key: str, reason: str) -> None:
        super().__init__(shard, key, reason)
        self.shard, self.key, self.reason = shard, key, reason

    def __str__(self) -> str:
        return f"{self.shard}: {self.key}: {self.reason}"


@dataclass(frozen=True)
class Record:
    """One sample as read: `image` holds the encoded bytes (not yet decoded, nor checked to be decodable)."""

    key: str
    shard: str
    image: bytes
    sample: Sample


# Writing


def write_shards(
    out: Path,
    samples: Iterable[Encoded],
    *,
    source: str,
    builder_args: dict[str, Any],
    shard_size: int = 1000,
    skipped: list[str] | None = None,
    log: Callable[[], list[str]] = list,
) -> dict[str, Any]:
    """Write `samples` as a shard set in the new (or empty) folder `out` and return the manifest.

    Beside the shards: `relations.txt`, the sorted predicates, if there are any; `skipped.txt` and `build.log`, the
    lines that the producer of `samples` has put into `skipped` and that `log` gives by the time it ends, if any.

    Equal input gives equal bytes. Raises UserError if `out` is taken or no sample comes, ValueError for an
    invalid sample; nothing is left behind then.
    """
    out = Path(out)
    tally = Tally()
    with new_folder(out) as partial:
        entries = [
            write_shard(partial / f"{number:06d}.tar", part)
            for number, part in enumerate(_parts(tally.count(samples), shard_size))
        ]
        if not entries:
            raise UserError(f"{out}: no samples to write (check the builder's input)")
        manifest = make_manifest(entries, tally, source=source, builder_args=builder_args)
        write_lines(partial / RELATIONS, sorted(tally.predicates))
        write_lines(partial / SKIPPED, skipped or [])
        write_lines(partial / LOG, log())
        (partial / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
    return manifest


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A hidden sibling of `out` to write into, which becomes `out` at the end and is removed by an exception.

    Raises UserError if `out` is taken or cannot be made.
    """
    check_free(out)
    partial = out.with_name(f".{out.name}.partial-{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"{out}: cannot be made: {error.strerror} (choose another --out)") from error
    try:
        yield partial
        partial.rename(out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def check_free(out: Path) -> None:
    """Raise UserError unless `out` is absent or an empty folder."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: already exists and is not an empty folder (remove it, or choose another --out)")


def write_lines(path: Path, lines: list[str]) -> None:
    """A text file of these lines; none where there are none."""
    if lines:
        path.write_text("".join(line + "\n" for line in lines), encoding="utf-8", errors="backslashreplace")


def _parts(samples: Iterable[Encoded], size: int) -> Iterator[Iterator[Encoded]]:
    """Consecutive parts of at most `size`; each must be used up before the next is asked for."""
    stream = iter(samples)
    for first in stream:
        yield chain([first], islice(stream, size - 1))


# Reading


class ShardSet:
    """Random access to a shard set; cheap to make and to pickle, safe across fork and threads.

    Nothing but the manifest and the shards' sizes is looked at until a sample is read. `len` counts what the
    manifest promises; a promised sample that is damaged or gone raises DataFault when it is read.
    """

    def __init__(self, path: Place | str, cache: CacheConfig = DEFAULT_CACHE) -> None:
        """Raises UserError naming the file if the manifest, a shard or its index is missing, or of another size.

        `path` is a folder or an address, whose shards come through `cache` and are looked at when they do.
        """
        self.path: Place = place_of(path) if isinstance(path, str) else path
        self.files = files_of(self.path, cache)
        self.manifest = read_manifest(self.path, cache.tries)
        self.shards = shard_entries(self.path / MANIFEST, self.manifest)
        check_indexed(self.path, self.shards)
        for entry in self.shards:
            self.files.check(entry)
        self._ends = list(accumulate(entry.samples for entry in self.shards))
        self._forget()

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def locate(self, index: int) -> tuple[int, int]:
        """(shard number, position in the shard) of sample `index`; raises IndexError outside [0, len)."""
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)} in {self.path}")
        shard = bisect_right(self._ends, index)
        return shard, index - self.first(shard)

    def first(self, shard: int) -> int:
        """The index of a shard's first sample."""
        return self._ends[shard - 1] if shard else 0

    def read(self, index: int, decode: Callable[[bytes], Any] = json.loads) -> Record:
        """Sample `index`; raises DataFault if it is damaged, IndexError outside [0, len). `decode` reads its JSON.

        Raises UserError where the index of its shard is not the one that the manifest lists.
        """
        shard, position = self.locate(index)
        name, row = self.shards[shard].name, self.index(shard)[position]
        fault = partial(DataFault, name, f"position {position}")
        if NOTHING in (row.image, row.text):
            raise fault("no image" if row.image == NOTHING else "no JSON")
        if max(sum(row.image), sum(row.text)) > self.shards[shard].bytes:
            raise fault("its index leads beyond the tar (run: relvlm data index)")
        try:
            members = read_members(self._file(shard), row.image, row.text)
            key = self._key(shard, position, row, [split_name(member) for member, _ in members])
        except UserError:  # of a cache: a full disk is no fault of the sample, though an OSError
            raise
        except OSError as error:
            raise fault(f"cannot be read: {error}") from error
        if row.bits & REPEATED:
            raise DataFault(name, key, "the key is there more than once: which image its JSON belongs to is unknown")
        (_, image), (_, annotation) = members
        return Record(key, name, image, parse_sample(name, key, annotation, decode))

    def _key(self, shard: int, position: int, row: Row, names: list[tuple[str, str]]) -> str:
        if row.bits & ODD_HEADER:
            return self._walked(shard)[position]
        (key, image), (other, text) = names
        if key != other or image not in IMAGE_SUFFIXES or text != "json":
            reason = "no image and JSON of one key where the index says (damaged, or not the tar that was indexed)"
            raise DataFault(self.shards[shard].name, f"position {position}", reason)
        return key

    def index(self, shard: int) -> ShardIndex:
        """Where the samples of a shard lie, and what they have."""
        return self._index(shard)

    def verify(self) -> list[str]:
        """Faults against the manifest's checksums (reads every byte); [] if sound."""
        return [fault for entry in self.shards for fault in self._verify(entry)]

    def _verify(self, entry: ShardEntry) -> Iterator[str]:
        try:
            if self.files.tar(entry, file_sha256) != entry.sha256:
                yield f"{entry.name}: SHA-256 differs from the manifest"
        except (OSError, UserError) as error:
            yield f"{entry.name}: cannot be read: {error}"

    def _open(self, shard: int) -> PositionedFile:
        return self.files.tar(self.shards[shard], PositionedFile)

    def _open_index(self, shard: int) -> ShardIndex:
        return self.files.index(self.shards[shard])

    def _walk(self, shard: int) -> list[str]:
        return [found.key for found in self.files.tar(self.shards[shard], scan_members)]

    def _forget(self) -> None:
        self._file = lru_cache(maxsize=OPEN_SHARDS)(self._open)
        self._index = lru_cache(maxsize=OPEN_SHARDS)(self._open_index)
        self._walked = lru_cache(maxsize=1)(self._walk)

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_file", "_index", "_walked")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()


def parse_sample(shard: str, key: str, annotation: bytes, decode: Callable[[bytes], Any] = json.loads) -> Sample:
    """The sample of a record's JSON; raises DataFault."""
    try:
        return Sample.from_json(decode(annotation))
    except SchemaError as error:
        raise DataFault(shard, key, f"invalid sample: {error}") from error
    except (ValueError, RecursionError) as error:
        raise DataFault(shard, key, f"invalid JSON: {error}") from error
