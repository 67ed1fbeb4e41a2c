"""One shard: a tar of `KEY.jpg|png` + `KEY.json`, and its index, made as the tar is written."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

from relvlm.data.shards.index import BLOCK, CAPTION, ENTITY, RELATION, IndexRows, Span, index_name
from relvlm.data.shards.manifest import ShardEntry, file_sha256
from relvlm.data.shards.schema import Sample

_KEY = re.compile(r"[A-Za-z0-9_-]{1,80}")

Encoded = tuple[str, bytes, Sample]  # key, encoded image, annotation


def write_shard(path: Path, samples: Iterable[Encoded]) -> ShardEntry:
    """Write one tar with its index, return its manifest entry; raises ValueError for a bad key, image or sample."""
    from webdataset import TarWriter  # imports torch: 2 s that a reader need not pay

    keys: set[str] = set()
    rows = IndexRows()
    with path.open("wb") as stream, TarWriter(stream, encoder=False, mtime=0) as writer:
        for key, image, sample in samples:
            if not _KEY.fullmatch(key) or key in keys:
                raise ValueError(f"key {key!r}: not unique in its shard, or not of the form {_KEY.pattern}")
            keys.add(key)
            members = {image_suffix(image): image, "json": encode_sample(sample)}
            places = _places(members, writer.tarstream.offset)
            rows.add(*places, sample)
            writer.write({"__key__": key, **members})
    return write_index(path, rows)


def _places(members: dict[str, bytes], offset: int) -> tuple[Span, Span]:
    """Where the image and the JSON come to lie in a tar that is `offset` bytes long: in the order of their suffixes."""
    places = {}
    for suffix, data in sorted(members.items()):
        places[suffix] = (offset + BLOCK, len(data))
        offset += BLOCK + -(-len(data) // BLOCK) * BLOCK
    text = places.pop("json")
    return places.popitem()[1], text


def write_index(shard: Path, rows: IndexRows) -> ShardEntry:
    """Write the index beside a tar that is complete; the manifest's entry of both."""
    index = shard.with_name(index_name(shard.name))
    unfinished = index.with_name(f".{index.name}.tmp")
    rows.write(unfinished)
    unfinished.replace(index)
    having = [rows.having(bit) for bit in (CAPTION, ENTITY, RELATION)]
    tar = shard.name, file_sha256(shard), shard.stat().st_size
    return ShardEntry(*tar, len(rows.rows), file_sha256(index), *having)


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
