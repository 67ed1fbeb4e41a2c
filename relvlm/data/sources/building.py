"""The flags that every builder has, and what it says at its end."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from relvlm.data.arguments import positive, share
from relvlm.data.image_ids import read_image_list
from relvlm.data.shards.store import LOG, SKIPPED
from relvlm.data.sources.driver import Driver, Options
from relvlm.data.sources.faults import LISTED, MAX_SHARE, Faults
from relvlm.data.sources.item import Source
from relvlm.data.sources.lookalike import read_lookalikes


def build_and_report(source: Source, args: argparse.Namespace, relations: tuple[str, ...] = ()) -> int:
    """Build `source` as the flags of `add_output_arguments` say, and say what came of it; returns the exit status.

    `relations` is the fixed list for `relations.txt`, where the source has one.
    """
    faults = Faults(source.name, args.max_faults)
    driver = Driver(source, faults, replace(options(args), relations=relations))
    manifest, skipped = driver.build(args.out)
    if driver.overlap.names:
        print(f"{len(driver.overlap.images)} images of test sets left out (--overlap)", file=sys.stderr)
    report(args.out, manifest, skipped, faults)
    return 0


def options(args: argparse.Namespace) -> Options:
    """What the flags of `add_output_arguments` say."""
    return Options(
        shard_size=args.shard_size,
        processes=args.processes,
        max_side=args.max_side,
        exclude=excluded(args.exclude),
        overlap=[] if args.overlap is None else read_image_list(args.overlap, "--overlap"),
        lookalikes=read_lookalikes(args.unlike) if args.unlike else None,
        unlike=tuple(str(folder) for folder in args.unlike),
    )


def add_output_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags that every builder has."""
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="new folder for the shards and manifest.json"
    )
    add_driver_arguments(parser)
    parser.add_argument(
        "--max-side",
        "--resize",
        type=positive,
        metavar="N",
        help="shrink photos whose longer side exceeds N pixels, boxes with them: small shards, quick decoding",
    )
    parser.add_argument(
        "--overlap",
        type=Path,
        metavar="FILE",
        help="images of test sets to leave out, as `relvlm data overlap` writes them; none of them need be here",
    )
    parser.add_argument(
        "--unlike",
        type=Path,
        nargs="+",
        default=[],
        metavar="DIR",
        help="folders of test photos: leave out what looks like one of them (perceptual hash), whatever its name",
    )
    parser.add_argument(
        "--exclude",
        type=Path,
        metavar="FILE",
        help="images to leave out, such as those of a test set: ids or file names, one a line, or a JSON list",
    )


def add_driver_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of everything that the driver writes, copies of shard sets among it."""
    parser.add_argument("--shard-size", type=positive, default=1000, metavar="N", help="samples per shard (1000)")
    parser.add_argument("--processes", type=positive, default=1, metavar="N", help="that make shards (%(default)s)")
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


def report(out: Path, manifest: dict[str, Any], skipped: int, faults: Faults) -> None:
    """Say on standard output what was built, on standard error what was left out."""
    totals = manifest["totals"]
    counts = ", ".join(f"{totals[k]} {k}" for k in ("samples", "captions", "entities", "relations"))
    print(f"{out}: {counts} in {totals['shards']} shards")
    report_faults(out, faults)
    if skipped:
        print(f"skipped {skipped} photos in all, listed in {out / SKIPPED}", file=sys.stderr)


def report_faults(out: Path, faults: Faults) -> None:
    """Say on standard error what records were left out, and where the whole list is."""
    for line in (*faults.notes, *faults.table(), *faults.lines[:LISTED]):
        print(line, file=sys.stderr)
    if faults.log():
        print(f"all of it is in {out / LOG}", file=sys.stderr)
