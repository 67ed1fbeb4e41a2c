"""Is a shard set sound? Checksums, schema, decodable images, sizes, duplicates, empty texts."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Sequence

from PIL import Image
from tqdm import tqdm

from relvlm.config.schema import DataConfig
from relvlm.data.json_keys import loads_unique
from relvlm.data.pictures import decode
from relvlm.data.shards.address import Place
from relvlm.data.shards.files import files_of
from relvlm.data.shards.manifest import MANIFEST, check_indexed, read_manifest, shard_entries
from relvlm.data.shards.schema import Sample
from relvlm.data.shards.store import DEFAULT_CACHE, DataFault, Record, ShardSet
from relvlm.errors import UserError

LISTED = 5  # damaged samples that a command names


def sound_samples(shards: ShardSet, damaged: list[str]) -> Iterator[Sample]:
    """The annotation of every sample that can be read; the others' faults are appended to `damaged`."""
    for index in _indices(shards):
        try:
            sample = shards.read(index).sample
        except DataFault as fault:
            damaged.append(str(fault))
            continue
        yield sample


def _indices(shards: ShardSet) -> Iterator[int]:
    yield from tqdm(range(len(shards)), desc=str(shards.path), unit="image", disable=None)


def picture(record: Record, max_pixels: int = DataConfig.max_pixels) -> Image.Image:
    """The image as RGB; raises DataFault where a training would count it as corrupt, or of another size."""
    try:
        image = decode(record.image, max_pixels)
    except ValueError as error:
        raise DataFault(record.shard, record.key, str(error)) from error
    width, height = record.sample.width, record.sample.height
    if image.size != (width, height):
        said = f"image is {image.width}x{image.height}, its JSON says {width}x{height}"
        raise DataFault(record.shard, record.key, said)
    return image


def refuse_repeated(record: Record, what: str, value: str, seen: set[str]) -> None:
    """Raise DataFault where `value` (the record's key or image_id) was seen before; else remember it."""
    if value in seen:
        raise DataFault(record.shard, record.key, f"same {what} as a record before: {value}")
    seen.add(value)


def report_damaged(damaged: Sequence[str]) -> None:
    """Name the first damaged samples on standard error, and say how many there are."""
    for fault in damaged[:LISTED]:
        print(f"damaged: {fault}", file=sys.stderr)
    if len(damaged) > LISTED:
        print(f"damaged: {len(damaged)} samples in all (relvlm data lint lists them)", file=sys.stderr)


def lint(folder: Place) -> Iterator[str]:
    """Every fault of the set, one line each; reads and decodes everything. UserError if there is no manifest.

    Shards that are missing, of a wrong size or without their index end the search: nothing in them can be found.
    """
    torn = list(_layout_faults(folder))
    yield from torn or _content_faults(ShardSet(folder))


def _layout_faults(folder: Place) -> Iterator[str]:
    entries = shard_entries(folder / MANIFEST, read_manifest(folder))
    check_indexed(folder, entries)
    files = files_of(folder, DEFAULT_CACHE)
    for entry in entries:
        try:
            files.check(entry)
            files.index(entry)
        except UserError as error:
            yield str(error)


def _content_faults(shards: ShardSet) -> Iterator[str]:
    yield from shards.verify()
    seen: dict[tuple[str, str], str] = {}
    for index in _indices(shards):
        try:
            record = shards.read(index, loads_unique)
            yield from _duplicates(record, seen)
            yield from _record_faults(record)
        except DataFault as fault:
            yield str(fault)


def _record_faults(record: Record) -> Iterator[str]:
    place = f"{record.shard}: {record.key}"
    sample = record.sample
    yield from (f"{place}: {fault}" for fault in _empty_texts(sample))
    picture(record)


def _empty_texts(sample: Sample) -> Iterator[str]:
    texts = {
        "captions": sample.captions,
        "entities.label": [e.label for e in sample.entities],
        "relations.predicate": [r.predicate for r in sample.relations],
    }
    yield from (f"{field}: empty text" for field, values in texts.items() if any(not v.strip() for v in values))


def _duplicates(record: Record, seen: dict[tuple[str, str], str]) -> Iterator[str]:
    """Keys, image ids and image bytes that came before; `seen` remembers where."""
    marks = {
        "key": record.key,
        "image_id": record.sample.image_id,
        "image bytes": hashlib.blake2b(record.image, digest_size=16).hexdigest(),
    }
    place = f"{record.shard}: {record.key}"
    for mark in marks.items():
        if mark in seen:
            yield f"{place}: same {mark[0]} as {seen[mark]}"
        seen.setdefault(mark, place)
