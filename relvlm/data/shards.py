"""Shard sets: folders of webdataset tars (`KEY.jpg|png` + `KEY.json`) with a `manifest.json`.

Written whole or not at all; read at random, because shuffling and resuming are functions of integers here.
Any webdataset reader can stream the same files.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from itertools import accumulate, chain, islice
from pathlib import Path
from typing import Any

from relvlm.data.schema import SCHEMA_VERSION, Sample, SchemaError
from relvlm.data.tar_index import Members, PositionedFile, scan_members
from relvlm.errors import UserError

MANIFEST = "manifest.json"
OPEN_SHARDS = 64  # file descriptors that one reader keeps
_KEY = re.compile(r"[A-Za-z0-9_-]{1,80}")
_SHARD_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*\.tar")

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


@dataclass(frozen=True)
class ShardEntry:
    """A shard's line in the manifest."""

    name: str
    sha256: str
    bytes: int
    samples: int


# Writing


def write_shards(
    out: Path,
    samples: Iterable[Encoded],
    *,
    source: str,
    builder_args: dict[str, Any],
    shard_size: int = 1000,
) -> dict[str, Any]:
    """Write `samples` as a shard set in the new (or empty) folder `out` and return the manifest.

    Equal input gives equal bytes. Until the last byte is written the data lie in a hidden sibling of `out`,
    which an exception removes. Raises UserError if `out` is taken or no sample comes, ValueError for an invalid
    sample.
    """
    out = Path(out)
    check_free(out)
    partial = out.with_name(f".{out.name}.partial-{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        entries = [
            write_shard(partial / f"{number:06d}.tar", part)
            for number, part in enumerate(_parts(samples, shard_size))
        ]
        if not entries:
            raise UserError(f"{out}: no samples to write (check the builder's input)")
        manifest = make_manifest(entries, source=source, builder_args=builder_args)
        (partial / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
        partial.rename(out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return manifest


def check_free(out: Path) -> None:
    """Raise UserError unless `out` is absent or an empty folder."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(
            f"{out}: already exists and is not an empty folder (remove it, or choose another --out)"
        )


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


def make_manifest(entries: list[ShardEntry], *, source: str, builder_args: dict[str, Any]) -> dict[str, Any]:
    """The manifest of `entries`, in plain JSON types."""
    return {
        "schema": SCHEMA_VERSION,
        "source": source,
        "builder": {"version": builder_version(), "arguments": builder_args},
        "totals": {
            "shards": len(entries),
            "samples": sum(e.samples for e in entries),
            "bytes": sum(e.bytes for e in entries),
        },
        "shards": [asdict(e) for e in entries],
    }


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


def file_sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def builder_version() -> str:
    """Version of this package, for the manifest."""
    try:
        return version("relvlm")
    except PackageNotFoundError:
        return "not installed"


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
        self.shards = _shard_entries(self.path / MANIFEST, self.manifest)
        for entry in self.shards:
            _check_size(self.path / entry.name, entry)
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
            if position >= len(members.keys):
                raise DataFault(
                    name, f"position {position}", f"only {len(members.keys)} samples found in the tar"
                )
            image, annotation = (self._bytes(shard, *place) for place in members.places(position))
        except OSError as error:
            raise DataFault(name, f"position {position}", f"cannot be read: {error}") from error
        key = members.keys[position]
        if image is None or annotation is None:
            raise DataFault(name, key, "no image" if image is None else "no JSON")
        return Record(key, name, image, _parse(name, key, annotation))

    def verify(self) -> list[str]:
        """Faults against the manifest's checksums and counts (reads every byte); [] if sound."""
        return [fault for shard in range(len(self.shards)) for fault in self._verify(shard)]

    def _verify(self, shard: int) -> Iterator[str]:
        entry = self.shards[shard]
        if file_sha256(self.path / entry.name) != entry.sha256:
            yield f"{entry.name}: SHA-256 differs from the manifest"
        found = len(self._members(shard).keys)
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


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of the shard set in folder `path`; raises UserError."""
    file = path / MANIFEST
    if not file.is_file():
        raise UserError(f"{path}: no {MANIFEST} in {path} (run: relvlm data build --help)")
    try:
        manifest = json.loads(file.read_bytes())
    except ValueError as error:
        raise UserError(f"{file}: not valid JSON: {error} (build the shard set again)") from error
    schema = manifest.get("schema") if isinstance(manifest, dict) else None
    if schema != SCHEMA_VERSION:
        raise UserError(f"{file}: schema: {schema!r}, this version reads {SCHEMA_VERSION} (build it again)")
    return manifest


def _shard_entries(file: Path, manifest: dict[str, Any]) -> list[ShardEntry]:
    entries = []
    for number, record in enumerate(manifest.get("shards", ())):
        try:
            entry = ShardEntry(**record)
        except TypeError as error:
            raise UserError(f"{file}: shards[{number}]: {error} (build it again)") from error
        if not _SHARD_NAME.fullmatch(entry.name):
            raise UserError(f"{file}: shards[{number}].name: {entry.name!r} is no plain file name *.tar")
        entries.append(entry)
    if not entries:
        raise UserError(f"{file}: shards: empty (build the shard set again)")
    return entries


def _check_size(path: Path, entry: ShardEntry) -> None:
    if not path.is_file():
        raise UserError(f"{path}: missing, though {MANIFEST} lists it (copy it again, or rebuild)")
    size = path.stat().st_size
    if size != entry.bytes:
        raise UserError(f"{path}: {size} bytes, {MANIFEST} says {entry.bytes} (copy it again, or rebuild)")


def _parse(shard: str, key: str, annotation: bytes) -> Sample:
    try:
        return Sample.from_json(json.loads(annotation))
    except SchemaError as error:
        raise DataFault(shard, key, f"invalid sample: {error}") from error
    except (ValueError, AttributeError, RecursionError) as error:
        raise DataFault(shard, key, f"invalid JSON: {error}") from error
