"""Shard sets: folders of webdataset tars (`KEY.jpg|png` + `KEY.json`) with a `manifest.json`.

Written whole or not at all; read at random, because shuffling and resuming are functions of integers here.
Any webdataset reader can stream the same files.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, chain, islice
from pathlib import Path
from typing import Any

from relvlm.data.shards.manifest import (
    MANIFEST,
    ShardEntry,
    Tally,
    check_size,
    file_sha256,
    make_manifest,
    read_manifest,
    shard_entries,
)
from relvlm.data.shards.schema import Sample, SchemaError
from relvlm.data.shards.tar_index import Members, PositionedFile, scan_members
from relvlm.errors import UserError

RELATIONS = "relations.txt"
SKIPPED = "skipped.txt"
LOG = "build.log"
OPEN_SHARDS = 64  # file descriptors that one reader keeps
_KEY = re.compile(r"[A-Za-z0-9_-]{1,80}")

Encoded = tuple[str, bytes, Sample]  # key, encoded image, annotation


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


def write_shard(path: Path, samples: Iterable[Encoded]) -> ShardEntry:
    """Write one tar and return its manifest entry; raises ValueError for a bad key, image or sample."""
    from webdataset import TarWriter  # imports torch: 2 s that a reader need not pay

    keys: set[str] = set()
    with path.open("wb") as stream, TarWriter(stream, encoder=False, mtime=0) as writer:
        for key, image, sample in samples:
            if not _KEY.fullmatch(key) or key in keys:
                raise ValueError(f"key {key!r}: not unique in its shard, or not of the form {_KEY.pattern}")
            keys.add(key)
            writer.write({"__key__": key, image_suffix(image): image, "json": encode_sample(sample)})
    return ShardEntry(path.name, file_sha256(path), path.stat().st_size, len(keys))


def encode_sample(sample: Sample) -> bytes:
    """The sample's JSON, checked against the schema (SchemaError)."""
    record = sample.to_json()
    Sample.from_json(record)
    return json.dumps(record, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def image_suffix(image: bytes) -> str:
    """`jpg` or `png` by the first bytes; raises ValueError for anything else."""
    if image.startswith(b"\xff\xd8\xff"):
        return "jpg"
    if image.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    raise ValueError(f"image: neither JPEG nor PNG (first bytes {image[:8]!r})")


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

    def __init__(self, path: Path | str) -> None:
        """Raises UserError naming the file if the manifest or a shard is missing or of another size."""
        self.path = Path(path)
        self.manifest = read_manifest(self.path)
        self.shards = shard_entries(self.path / MANIFEST, self.manifest)
        for entry in self.shards:
            check_size(self.path / entry.name, entry)
        self._ends = list(accumulate(entry.samples for entry in self.shards))
        self._forget()

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def locate(self, index: int) -> tuple[int, int]:
        """(shard number, position in the shard) of sample `index`; raises IndexError outside [0, len)."""
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)} in {self.path}")
        shard = bisect_right(self._ends, index)
        return shard, index - (self._ends[shard - 1] if shard else 0)

    def read(self, index: int) -> Record:
        """Sample `index`; raises DataFault if it is damaged, IndexError outside [0, len)."""
        shard, position = self.locate(index)
        name = self.shards[shard].name
        try:
            members = self._members(shard)
            if not position < len(members.keys) <= self.shards[shard].samples:
                raise DataFault(name, f"position {position}", self._miscounted(shard, len(members.keys)))
            image, annotation = (self._bytes(shard, *place) for place in members.places(position))
        except OSError as error:
            raise DataFault(name, f"position {position}", f"cannot be read: {error}") from error
        key = members.keys[position]
        if key in members.repeated:
            raise DataFault(name, key, "the key is there more than once: which image its JSON belongs to is unknown")
        if image is None or annotation is None:
            raise DataFault(name, key, "no image" if image is None else "no JSON")
        return Record(key, name, image, _parse(name, key, annotation))

    def _miscounted(self, shard: int, found: int) -> str:
        promised = self.shards[shard].samples
        if found > promised:  # positions mean nothing, and some samples would never be seen
            return f"{found} samples found in the tar, {MANIFEST} says {promised} (build the shard set again)"
        return f"only {found} samples found in the tar"

    def verify(self) -> list[str]:
        """Faults against the manifest's checksums and counts (reads every byte); [] if sound."""
        return [fault for shard in range(len(self.shards)) for fault in self._verify(shard)]

    def _verify(self, shard: int) -> Iterator[str]:
        entry = self.shards[shard]
        try:
            if file_sha256(self.path / entry.name) != entry.sha256:
                yield f"{entry.name}: SHA-256 differs from the manifest"
            found = len(self._members(shard).keys)
        except OSError as error:
            yield f"{entry.name}: cannot be read: {error}"
            return
        if found != entry.samples:
            yield f"{entry.name}: {found} samples, the manifest says {entry.samples}"

    def _members(self, shard: int) -> Members:
        if shard not in self._indexes:
            self._indexes[shard] = scan_members(self.path / self.shards[shard].name)
        return self._indexes[shard]

    def _bytes(self, shard: int, offset: int, size: int) -> bytes | None:
        return None if offset < 0 else self._file(shard).read(offset, size)

    def _open(self, shard: int) -> PositionedFile:
        return PositionedFile(self.path / self.shards[shard].name)

    def _forget(self) -> None:
        self._indexes: dict[int, Members] = {}
        self._file = lru_cache(maxsize=OPEN_SHARDS)(self._open)

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_indexes", "_file")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()


def _parse(shard: str, key: str, annotation: bytes) -> Sample:
    try:
        return Sample.from_json(json.loads(annotation))
    except SchemaError as error:
        raise DataFault(shard, key, f"invalid sample: {error}") from error
    except (ValueError, RecursionError) as error:
        raise DataFault(shard, key, f"invalid JSON: {error}") from error
