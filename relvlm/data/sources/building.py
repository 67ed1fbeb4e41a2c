"""From a source's items to a shard set: photos, faults, excluded images, the builders' flags and report."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from relvlm.data.arguments import positive, share
from relvlm.data.image_ids import DATASETS, ImageList, read_image_list
from relvlm.data.shards.store import LOG, SKIPPED, Encoded, check_free, write_shards
from relvlm.data.sources.faults import LISTED, MAX_SHARE, Faults, RecordFault
from relvlm.data.sources.raw import NoPhoto, PhotoFault
from relvlm.errors import UserError

T = TypeVar("T")
Named = Callable[[T], tuple[str, str]]  # an item's image id and the name of its photo


def without(
    items: Iterable[T], exclude: Collection[str | int], named: Named[T], faults: Faults
) -> tuple[list[T], dict[str, int]]:
    """The items whose image is not excluded, and how many were, for the manifest.

    Raises UserError where `exclude` names images and none of them is here; notes those that are not.
    """
    images = ImageList(exclude, DATASETS[faults.source])
    kept = [item for item in items if not images.has(*named(item))]
    warning = images.check("--exclude", faults.source)
    if warning:
        faults.notes.append(f"warning: {warning}")
    return kept, images.counts()


def write_set(
    out: Path,
    items: Collection[T],
    make: Callable[[T], Encoded],
    named: Named[T],
    images: Sequence[Path],
    faults: Faults,
    *,
    arguments: dict[str, Any],
    shard_size: int,
    hint: str = "check --images",
) -> tuple[dict[str, Any], list[str]]:
    """Write the shard set `out` of what `make` gives for each item, with its photo from the folders `images`.

    `make` raises PhotoFault or RecordFault for what it cannot use. Returns the manifest and the photos left out, each
    with its reason; raises UserError where too much is left out, or `out` is taken.
    """
    check_free(out)
    skipped: list[str] = []
    manifest = write_shards(
        out,
        _encoded(items, make, named, images, faults, skipped, hint),
        source=faults.source,
        builder_args={**arguments, "shard_size": shard_size, "max_faults": faults.max_share},
        shard_size=shard_size,
        skipped=skipped,
        log=faults.log,
    )
    return manifest, skipped


def _encoded(
    items: Collection[T],
    make: Callable[[T], Encoded],
    named: Named[T],
    images: Sequence[Path],
    faults: Faults,
    skipped: list[str],
    hint: str,
) -> Iterator[Encoded]:
    faults.check()
    faults.read["photo"] = len(items)
    for item in progress(items, faults.source):
        try:
            encoded = make(item)
        except PhotoFault as fault:
            skipped.append(str(fault))
            _count_photo(fault, faults)
            continue
        except RecordFault as fault:
            faults.add("image", f"image {named(item)[0]}", fault)
            continue
        yield encoded
    if items and len(skipped) == len(items):
        places = ", ".join(map(str, images)) or "no folder given"
        raise UserError(f"{places}: none of the {len(items)} photos can be used, first: {skipped[0]} ({hint})")
    faults.check()


def _count_photo(fault: PhotoFault, faults: Faults) -> None:
    if isinstance(fault, NoPhoto):
        faults.add("photo", fault.name, fault)
        return
    faults.add("photo", fault.name, RecordFault(fault.reason, fault.detail))
    faults.check(["photo"])  # not only after hours


def progress(items: Collection[T], what: str) -> Iterable[T]:
    """`items` with a bar on a terminal, silent elsewhere."""
    return tqdm(items, desc=what, unit="image", disable=None)


def add_output_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags that every builder has."""
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="new folder for the shards and manifest.json"
    )
    parser.add_argument("--shard-size", type=positive, default=1000, metavar="N", help="samples per shard (1000)")
    parser.add_argument(
        "--exclude",
        type=Path,
        metavar="FILE",
        help="images to leave out, such as those of a test set: ids or file names, one a line, or a JSON list",
    )
    parser.add_argument(
        "--max-faults",
        type=share,
        default=MAX_SHARE,
        metavar="SHARE",
        help="faulty records of a kind to leave out at most, more end the build (%(default)s; up to 3 are always left "
        "out, unless this is 0); photos that are not there do not count",
    )


def excluded(file: Path | None) -> list[str]:
    """The images that `--exclude` names; none without a file."""
    return [] if file is None else read_image_list(file, "--exclude")


def report(out: Path, manifest: dict[str, Any], skipped: list[str], faults: Faults) -> None:
    """Say on standard output what was built, on standard error what was left out."""
    totals = manifest["totals"]
    counts = ", ".join(f"{totals[k]} {k}" for k in ("samples", "captions", "entities", "relations"))
    print(f"{out}: {counts} in {totals['shards']} shards")
    report_faults(out, faults)
    if skipped:
        print(f"skipped {len(skipped)} photos in all, listed in {out / SKIPPED}", file=sys.stderr)


def report_faults(out: Path, faults: Faults) -> None:
    """Say on standard error what records were left out, and where the whole list is."""
    for line in (*faults.notes, *faults.table(), *faults.lines[:LISTED]):
        print(line, file=sys.stderr)
    if faults.log():
        print(f"all of it is in {out / LOG}", file=sys.stderr)
