"""`relvlm data index`: the indexes of a shard set that was built elsewhere, or before sets had any.

For tars at an address, they and the manifest come into a folder, and the tars stay where they are.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm

from relvlm import storage
from relvlm.data.arguments import shard_set
from relvlm.data.shards.address import Address, SplitPlace
from relvlm.data.shards.fetching import again, copied
from relvlm.data.shards.index import LARGEST_TEXT, NOTHING, REPEATED, IndexRows
from relvlm.data.shards.manifest import (
    MANIFEST,
    SHARD_NAME,
    TRIES,
    ShardEntry,
    Tally,
    check_size,
    file_sha256,
    make_manifest,
    read_manifest,
    shard_entries,
)
from relvlm.data.shards.members import PositionedFile
from relvlm.data.shards.schema import Sample
from relvlm.data.shards.shard_file import write_index
from relvlm.data.shards.store import RELATIONS, DataFault, new_folder, parse_sample, write_lines
from relvlm.data.shards.tar_walk import Found, scan_members
from relvlm.errors import UserError

EPILOG = """a set of webdataset tars with a manifest.json that another program wrote:
  relvlm data index data/coco

tars of KEY.jpg and KEY.json (this package's samples) at an address without a manifest.json, which are read once; the
same text is then the `path` of a config, or DIR of the other commands:
  relvlm data index 'data/coco::https://example.org/coco' --tars '{000000..000117}.tar'
  relvlm data index 'data/coco::pipe:ssh host cat /data/coco/{}' --tars '{000000..000117}.tar'

A record that cannot be read is named, and no epoch of a training holds it. The tars stay as they are.
"""
LARGEST_TAR = 1 << 38  # bytes; what is longer does not end


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


def index_tars(place: SplitPlace, names: Sequence[str], faulty: list[str]) -> list[ShardEntry]:
    """Write the new folder of `place`: manifest, index of each of its tars, list of predicates. Reads each tar once.

    Raises UserError, with nothing written, where the folder is taken or a tar cannot be fetched.
    """
    tally, entries = Tally(), []
    with new_folder(place.folder) as folder:
        for name in tqdm(names, desc="index", unit="shard", disable=None):
            tar = folder / name
            _fetch(place.tars / name, tar)
            entries.append(_write_index(tar, scan_members(tar), faulty, tally))
            tar.unlink()
        if not tally.samples:
            raise UserError(f"{place}: no tar has a sample (are they of KEY.jpg and KEY.json?)")
        told = {"tars": len(names), "first": names[0], "last": names[-1]}
        manifest = make_manifest(entries, tally, source=place.name, builder_args=told)
        manifest["totals"]["samples"] = sum(entry.samples for entry in entries)  # also those that cannot be read
        write_lines(folder / RELATIONS, sorted(tally.predicates))
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
    return entries


def _fetch(address: Address, tar: Path) -> None:
    def copy() -> None:
        with tar.open("wb") as stream:
            for _ in copied(address, stream, LARGEST_TAR, "DIR"):
                pass

    try:
        again(address, TRIES, copy)
    except FileNotFoundError as error:
        raise UserError(f"{address}: no such file (check --tars)") from error


def tar_names(pattern: str) -> list[str]:
    """`{000000..000117}.tar` as a list; raises UserError for what is no tar's name."""
    from braceexpand import braceexpand  # as webdataset does

    try:
        names = list(braceexpand(pattern))
    except ValueError as error:
        raise UserError(f"--tars {pattern}: {error}") from error
    odd = [name for name in names if not SHARD_NAME.fullmatch(name)] or (names if len({*names}) < len(names) else [])
    if odd:
        raise UserError(f"--tars {pattern}: {odd[0]!r} is no plain name of a *.tar, or is there twice")
    return names


def _index_shard(tar: Path, entry: ShardEntry, faulty: list[str]) -> ShardEntry:
    if file_sha256(tar) != entry.sha256:
        raise UserError(f"{tar}: SHA-256 differs from {MANIFEST} (copy it again, or build the set again)")
    found = scan_members(tar)
    if len(found) != entry.samples:
        raise UserError(f"{tar}: holds {len(found)} samples, {MANIFEST} says {entry.samples} (build the set again)")
    return _write_index(tar, found, faulty, Tally())


def _write_index(tar: Path, found: list[Found], faulty: list[str], tally: Tally) -> ShardEntry:
    rows, file = IndexRows(), PositionedFile(tar)
    for record in found:
        try:
            sample = _sample(record, tar.name, file)
            tally.add(sample)
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
    parser.add_argument("folder", type=shard_set, metavar="DIR", help="folder of the set, or DIR::ADDRESS")
    parser.add_argument("--tars", metavar="NAMES", help="with DIR::ADDRESS, their names, {a..b} for a range")


def main(args: argparse.Namespace) -> int:
    """Run the command; returns the exit status, 1 where a record cannot be read."""
    if isinstance(args.folder, Address):
        raise UserError(
            f"{args.folder}: indexes are written into a folder (index a copy and upload it, or name DIR::{args.folder})"
        )
    if isinstance(args.folder, SplitPlace) != bool(args.tars):
        raise UserError("--tars goes with DIR::ADDRESS (to index tars at an address), and that with --tars")
    faulty: list[str] = []
    if isinstance(args.folder, SplitPlace):
        entries = index_tars(args.folder, tar_names(args.tars), faulty)
    else:
        entries = index_set(args.folder, faulty)
    for line in faulty:
        print(line)
    counts = {what: sum(getattr(entry, what) for entry in entries) for what in ("captions", "entities", "relations")}
    having = ", ".join(f"{count} have {what}" for what, count in counts.items())
    print(f"{args.folder}: {sum(entry.samples for entry in entries)} records: {having}", file=sys.stderr)
    return 1 if faulty else 0
