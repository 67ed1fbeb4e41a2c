"""`relvlm data index`: the indexes of a shard set that was built elsewhere, or before sets had any."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm

from relvlm import storage
from relvlm.data.arguments import shard_set
from relvlm.data.shards.address import Address
from relvlm.data.shards.index import LARGEST_TEXT, NOTHING, REPEATED, IndexRows
from relvlm.data.shards.manifest import (
    MANIFEST,
    ShardEntry,
    check_size,
    file_sha256,
    read_manifest,
    shard_entries,
)
from relvlm.data.shards.members import PositionedFile
from relvlm.data.shards.schema import Sample
from relvlm.data.shards.shard_file import write_index
from relvlm.data.shards.store import DataFault, parse_sample
from relvlm.data.shards.tar_walk import Found, scan_members
from relvlm.errors import UserError

EPILOG = """example, a set of webdataset tars with a manifest.json that another program wrote:
  relvlm data index data/coco

A record that cannot be read is named, and no epoch of a training holds it. The tars stay as they are.
"""


def index_set(folder: Path, faulty: list[str]) -> list[ShardEntry]:
    """Write an index beside each shard, and then the manifest that lists them; `faulty` takes a line a bad record.

    Raises UserError, with the manifest as it was, where a shard is not the one that it lists.
    """
    manifest = read_manifest(folder)
    entries = shard_entries(folder / MANIFEST, manifest)
    for entry in entries:
        check_size(folder / entry.name, entry)
    with storage.writing(folder):
        made = [
            _index_shard(folder / entry.name, entry, faulty)
            for entry in tqdm(entries, desc="index", unit="shard", disable=None)
        ]
        listed = manifest | {"shards": [asdict(entry) for entry in made]}
        storage.write_whole(folder / MANIFEST, json.dumps(listed, indent=2) + "\n")
    return made


def _index_shard(tar: Path, entry: ShardEntry, faulty: list[str]) -> ShardEntry:
    if file_sha256(tar) != entry.sha256:
        raise UserError(f"{tar}: SHA-256 differs from {MANIFEST} (copy it again, or build the set again)")
    found = scan_members(tar)
    if len(found) != entry.samples:
        raise UserError(f"{tar}: holds {len(found)} samples, {MANIFEST} says {entry.samples} (build the set again)")
    rows, file = IndexRows(), PositionedFile(tar)
    for record in found:
        try:
            sample = _sample(record, tar.name, file)
        except DataFault as fault:
            sample = None
            faulty.append(str(fault))
        image, text = record.places["image"], record.places["json"]
        rows.add(image, text if text[1] <= LARGEST_TEXT else NOTHING, sample, record.marks)
    return write_index(tar, rows)


def _sample(found: Found, shard: str, file: PositionedFile) -> Sample:
    text = found.places["json"]
    reason = "the key is there more than once" if found.marks & REPEATED else ""
    reason = reason or next((f"no {what}" for what, place in found.places.items() if place == NOTHING), "")
    if text[1] > LARGEST_TEXT:
        reason = f"its JSON has {text[1]} bytes, more than {LARGEST_TEXT}"
    if reason:
        raise DataFault(shard, found.key, reason)
    return parse_sample(shard, found.key, file.read(*text))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `relvlm data index`."""
    parser.description = "Write the index of each shard: where its records lie, which kinds of batches can use them."
    parser.add_argument("folder", type=shard_set, metavar="DIR", help="shard set (the folder with manifest.json)")


def main(args: argparse.Namespace) -> int:
    """Run the command; returns the exit status, 1 where a record cannot be read."""
    if isinstance(args.folder, Address):
        raise UserError(
            f"{args.folder}: indexes are written beside the shards (index a copy in a folder, then upload it)"
        )
    faulty: list[str] = []
    entries = index_set(args.folder, faulty)
    for line in faulty:
        print(line)
    counts = {what: sum(getattr(entry, what) for entry in entries) for what in ("captions", "entities", "relations")}
    having = ", ".join(f"{count} have {what}" for what, count in counts.items())
    print(f"{args.folder}: {sum(entry.samples for entry in entries)} records: {having}", file=sys.stderr)
    return 1 if faulty else 0
