"""One shard of a build, made by one process from start to end: read, annotate, shrink, encode, hash, journal."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from relvlm.data.shards.index import index_name
from relvlm.data.shards.manifest import ShardEntry, Tally
from relvlm.data.shards.shard_file import Encoded, write_shard
from relvlm.data.sources.faults import Faults, RecordFault
from relvlm.data.sources.item import Item, Source
from relvlm.data.sources.lookalike import Lookalikes
from relvlm.data.sources.raw import NoPhoto, PhotoFault, photo_size
from relvlm.data.sources.shrink import shrink

JOURNAL = "journal"  # the folder, within that of an unfinished build, of what is not part of the shard set
_KEY = re.compile(r"[A-Za-z0-9_-]{1,80}")


@dataclass(frozen=True)
class Maker:
    """What every shard of a build is made by."""

    source: Source
    folder: Path
    max_side: int | None
    max_faults: float
    lookalikes: Lookalikes | None = None


def fingerprint(items: list[Item]) -> str:
    """A hash of which photos a shard is made of."""
    named = "\n".join(repr((item.image_id, item.key, tuple(item.photo))) for item in items)  # type: ignore[arg-type]
    return hashlib.sha256(named.encode(errors="surrogatepass")).hexdigest()


def finished(folder: Path, number: int, items: list[Item]) -> dict[str, Any] | None:
    """The journal's entry of a shard that an earlier run has finished of these very items."""
    try:
        entry = json.loads((folder / JOURNAL / f"{number:06d}.json").read_bytes())
    except (OSError, ValueError):
        return None
    there = not entry["shard"] or _is_there(folder, entry["shard"])
    return entry if there and entry["fingerprint"] == fingerprint(items) else None


def _is_there(folder: Path, shard: dict[str, Any]) -> bool:
    """Whether a shard that the journal tells of lies there, made by this version."""
    if shard.keys() != {field.name for field in fields(ShardEntry)}:
        return False
    tar, index = folder / shard["name"], folder / index_name(shard["name"])
    return tar.is_file() and index.is_file() and tar.stat().st_size == shard["bytes"]


def make_shard(maker: Maker, number: int, items: list[Item]) -> dict[str, Any]:
    """Write shard `number` and then its entry in the journal, which is returned."""
    tally, faults, skipped = Tally(), Faults(maker.source.name, maker.max_faults), []  # type: ignore[var-annotated]
    tar = maker.folder / JOURNAL / f"{number:06d}.tar"
    shard = write_shard(tar, tally.count(_encoded(maker, items, faults, skipped)))
    if shard.samples:
        for file in (tar.with_name(index_name(tar.name)), tar):
            file.rename(maker.folder / file.name)
    entry = {
        "fingerprint": fingerprint(items),
        "images": len(items),
        "shard": asdict(shard) if shard.samples else None,
        "tally": tally.to_json(),
        "faults": faults.to_json(),
        "skipped": skipped,
    }
    write_whole(tar.with_suffix(".json"), json.dumps(entry))
    return entry


def write_whole(path: Path, text: str) -> None:
    """Write a file that is never seen half written."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    partial.write_text(text, encoding="utf-8")
    partial.rename(path)


def _encoded(maker: Maker, items: list[Item], faults: Faults, skipped: list[str]) -> Iterator[Encoded]:
    keys: set[str] = set()
    for item in items:
        try:
            encoded = _encode(maker, item, faults)
            if encoded[0] in keys:
                raise RecordFault("key: another image of its shard has it", encoded[0])
        except PhotoFault as fault:
            skipped.append(str(fault))
            count_photo(fault, faults)
        except RecordFault as fault:
            faults.add("image", f"image {item.image_id}", fault)
        else:
            keys.add(encoded[0])
            yield encoded


def _encode(maker: Maker, item: Item, faults: Faults) -> Encoded:
    data = item.photo.read()
    sample = maker.source.sample(item, photo_size(item.photo.name, data), faults)
    try:
        if maker.lookalikes is not None:
            maker.lookalikes.refuse(data)
        data, sample = shrink(data, sample, maker.max_side)
    except ValueError as error:
        raise PhotoFault(item.photo.name, "corrupt image", str(error).removeprefix("corrupt image: ")) from error
    return safe_key(item.key), data, sample


def count_photo(fault: PhotoFault, faults: Faults) -> None:
    """Count a photo that is left out; one that is not there is no fault."""
    whole = fault if isinstance(fault, NoPhoto) else RecordFault(fault.reason, fault.detail)
    faults.add("photo", fault.name, whole)


def safe_key(key: str) -> str:
    """`key` where a tar's member may have it as its name; else what of it can stay, and a hash that keeps it apart."""
    if _KEY.fullmatch(key):
        return key
    digest = hashlib.sha256(key.encode(errors="surrogatepass")).hexdigest()[:16]
    return f"{re.sub('[^A-Za-z0-9_-]+', '_', key)[:60]}-{digest}"
