"""`manifest.json` of a shard set: what lies in the folder, what made it, and how to tell that it is unharmed."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from relvlm.config.cache import CacheConfig
from relvlm.data.shards.address import Address, Place
from relvlm.data.shards.fetching import read_address
from relvlm.data.shards.schema import SCHEMA_VERSION, Sample
from relvlm.errors import UserError

MANIFEST = "manifest.json"
TRIES = CacheConfig.tries
SHARD_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*\.tar")


@dataclass(frozen=True)
class ShardEntry:
    """A shard's line in the manifest; `index` is the SHA-256 of its index, empty where it has none.

    `captions`, `entities`, `relations`: samples that have such, with words.
    """

    name: str
    sha256: str
    bytes: int
    samples: int
    index: str = ""
    captions: int = 0
    entities: int = 0
    relations: int = 0


@dataclass
class Tally:
    """Running totals of the samples that pass through `count`."""

    samples: int = 0
    captions: int = 0
    entities: int = 0
    relations: int = 0
    predicates: set[str] = field(default_factory=set)

    def count(self, encoded: Iterable[tuple[str, bytes, Sample]]) -> Iterator[tuple[str, bytes, Sample]]:
        """`encoded`, unchanged."""
        for key, image, sample in encoded:
            self.add(sample)
            yield key, image, sample

    def add(self, sample: Sample) -> None:
        """Count one."""
        self.samples += 1
        self.captions += len(sample.captions)
        self.entities += len(sample.entities)
        self.relations += len(sample.relations)
        self.predicates.update(r.predicate for r in sample.relations)

    def to_json(self) -> dict[str, Any]:
        """The totals in plain JSON types, for `include`."""
        return {**vars(self), "predicates": sorted(self.predicates)}

    def include(self, part: dict[str, Any]) -> None:
        """Add the totals that `to_json` of another part says."""
        for name in ("samples", "captions", "entities", "relations"):
            setattr(self, name, getattr(self, name) + part[name])
        self.predicates.update(part["predicates"])


def make_manifest(
    entries: list[ShardEntry], tally: Tally, *, source: str, builder_args: dict[str, Any]
) -> dict[str, Any]:
    """The manifest of `entries`, in plain JSON types."""
    return {
        "schema": SCHEMA_VERSION,
        "source": source,
        "builder": {"version": builder_version(), "arguments": builder_args},
        "totals": {
            "shards": len(entries),
            "bytes": sum(e.bytes for e in entries),
            "samples": tally.samples,
            "captions": tally.captions,
            "entities": tally.entities,
            "relations": tally.relations,
            "predicates": len(tally.predicates),
        },
        "shards": [asdict(e) for e in entries],
    }


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


def read_manifest(path: Place, tries: int = TRIES) -> dict[str, Any]:
    """The manifest of the shard set in a folder, or at an address that is asked `tries` times; raises UserError."""
    file = path / MANIFEST
    try:
        data = read_address(file, tries) if isinstance(file, Address) else file.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(f"{path}: no {MANIFEST} in {path} (run: relvlm data build --help)") from error
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror}") from error
    try:
        manifest = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file}: not valid JSON: {error} (build the shard set again)") from error
    schema = manifest.get("schema") if isinstance(manifest, dict) else None
    if schema != SCHEMA_VERSION or type(schema) is not int:
        raise UserError(f"{file}: schema: {schema!r}, this version reads {SCHEMA_VERSION} (build it again)")
    for name, kind in (("source", str), ("builder", dict), ("totals", dict)):
        if not isinstance(manifest.get(name, kind()), kind):
            raise UserError(f"{file}: {name}: {manifest[name]!r} is no {kind.__name__} (build it again)")
    return manifest


def shard_entries(file: Place, manifest: dict[str, Any]) -> list[ShardEntry]:
    """The shards that `manifest` (read from `file`) lists; raises UserError, also for a name with a folder."""
    records = manifest.get("shards", [])
    if not isinstance(records, list):
        raise UserError(f"{file}: shards: no list (build the shard set again)")
    entries = [_entry(record, f"{file}: shards[{number}]") for number, record in enumerate(records)]
    if not entries:
        raise UserError(f"{file}: shards: empty (build the shard set again)")
    names = [entry.name for entry in entries]
    repeated = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if repeated:
        raise UserError(f"{file}: shards: {repeated[0]} is listed twice (build the shard set again)")
    _check_total(file, manifest, sum(entry.samples for entry in entries))
    return entries


def _entry(record: Any, place: str) -> ShardEntry:
    if not isinstance(record, dict):
        raise UserError(f"{place}: {record!r} is no JSON object (build it again)")
    try:
        entry = ShardEntry(**record)
    except TypeError as error:
        raise UserError(f"{place}: {error} (build it again)") from error
    for field_ in fields(entry):
        value, is_text = getattr(entry, field_.name), field_.type == "str"
        if is_text and type(value) is not str:
            raise UserError(f"{place}.{field_.name}: {value!r} is no text (build it again)")
        if not is_text and (type(value) is not int or value < 0):
            raise UserError(f"{place}.{field_.name}: {value!r} is no count (build it again)")
    if not SHARD_NAME.fullmatch(entry.name):
        raise UserError(f"{place}.name: {entry.name!r} is no plain file name *.tar")
    return entry


def _check_total(file: Place, manifest: dict[str, Any], samples: int) -> None:
    total = manifest.get("totals", {}).get("samples", samples)
    if total != samples:
        raise UserError(f"{file}: totals.samples: {total!r}, its shards hold {samples} (edited? build it again)")


def check_indexed(folder: Place, entries: Iterable[ShardEntry]) -> None:
    """Raise UserError unless the manifest of the set in `folder` lists an index for each shard."""
    bare = next((entry.name for entry in entries if not entry.index), None)
    if bare:
        raise UserError(f"{folder / MANIFEST}: lists no index of {bare} (run once: relvlm data index {folder})")


def check_size(path: Path, entry: ShardEntry) -> None:
    """Raise UserError unless the shard is there with the size that the manifest says."""
    if not path.is_file():
        raise UserError(f"{path}: missing, though {MANIFEST} lists it (copy it again, or rebuild)")
    size = path.stat().st_size
    if size != entry.bytes:
        raise UserError(f"{path}: {size} bytes, {MANIFEST} says {entry.bytes} (copy it again, or rebuild)")
