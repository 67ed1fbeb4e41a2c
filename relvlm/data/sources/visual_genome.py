"""Visual Genome as a shard set: photos with the samples of relvlm/data/sources/scene_graphs.py, or those alone."""

from __future__ import annotations

import argparse
import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from relvlm.data.shards.schema import Sample
from relvlm.data.shards.store import LOG, RELATIONS, Encoded, check_free, new_folder, write_lines
from relvlm.data.sources.building import (
    add_output_arguments,
    excluded,
    report,
    report_faults,
    without,
    write_set,
)
from relvlm.data.sources.faults import Faults
from relvlm.data.sources.raw import PhotoFault, check_size, read_photo
from relvlm.data.sources.scene_graphs import Files, ImageGraph, parse, read_graphs, to_sample
from relvlm.data.tools.statistics import as_text, describe
from relvlm.errors import UserError

EPILOG = """examples:
  relvlm data build visual_genome --relationships relationships.json --attributes attributes.json \\
      --image-data image_data.json --images VG_100K VG_100K_2 --out data/vg
  relvlm data build visual_genome --relationships relationships.json --parse-only --out data/vg_parsed
"""


def build(
    files: Files,
    images: Sequence[Path],
    out: Path,
    *,
    exclude: Collection[str | int] = (),
    shard_size: int = 1000,
    faults: Faults | None = None,
) -> tuple[dict[str, Any], list[str]]:
    """Write the shard set `out` from the photos `ID.jpg` in the folders `images`.

    Returns the manifest and the photos left out, each with its reason. Records that cannot be used go into `faults`.
    UserError for unreadable input, too many faults or a taken `out`.
    """
    check_free(out)
    faults = faults or Faults("visual_genome")
    wanted, counts = without(read_graphs(files, faults), exclude, _named, faults)

    def make(graph: ImageGraph) -> Encoded:
        return graph.image_id.zfill(8), *_photo_and_sample(graph, images, faults)

    names = {k: v.name for k, v in vars(files).items() if v is not None}
    return write_set(
        out,
        wanted,
        make,
        _named,
        images,
        faults,
        arguments={**names, "excluded": counts},
        shard_size=shard_size,
        hint="check --images, or parse the annotation alone with --parse-only",
    )


def _named(graph: ImageGraph) -> tuple[str, str]:
    return graph.image_id, f"{graph.image_id}.jpg"


def _photo_and_sample(graph: ImageGraph, images: Sequence[Path], faults: Faults) -> tuple[bytes, Sample]:
    name = f"{graph.image_id}.jpg"
    photo, width, height = read_photo(images, name)
    if graph.size:
        check_size(name, (width, height), graph.size)
    sample = to_sample(graph, faults, (width, height))
    if sample is None:
        raise PhotoFault(name, "no usable object in its annotation")
    return photo, sample


def parse_only(
    files: Files, out: Path, *, exclude: Collection[str | int] = (), faults: Faults | None = None
) -> dict[str, Any]:
    """Write `samples.jsonl`, `relations.txt` and `statistics.json` into the new folder `out`, without photos.

    Returns the statistics (of `relvlm.data.tools.statistics.describe`). Records that cannot be used go into `faults`.
    UserError for unreadable input or too many faults.
    """
    check_free(out)
    faults = faults or Faults("visual_genome")
    graphs, _ = without(read_graphs(files, faults), exclude, _named, faults)
    samples = list(parse(graphs, faults))
    faults.check()
    if not samples:
        raise UserError(f"{files.relationships}: no image with a usable object")
    figures = describe(samples)
    with new_folder(out) as folder:
        with (folder / "samples.jsonl").open("w", encoding="utf-8") as stream:
            stream.writelines(json.dumps(s.to_json(), ensure_ascii=False) + "\n" for s in samples)
        write_lines(folder / RELATIONS, sorted({r.predicate for s in samples for r in s.relations}))
        write_lines(folder / LOG, faults.log())
        (folder / "statistics.json").write_text(json.dumps(figures, indent=2, ensure_ascii=False) + "\n")
    return figures


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `relvlm data build visual_genome`."""
    parser.description = "Build a shard set of Visual Genome: photos, labelled boxes with attributes, relations."
    parser.epilog = EPILOG
    parser.add_argument("--relationships", type=Path, required=True, metavar="FILE", help="relationships.json")
    parser.add_argument("--attributes", type=Path, metavar="FILE", help="attributes.json: adjectives, and more objects")
    parser.add_argument("--objects", type=Path, metavar="FILE", help="objects.json: objects that no relation names")
    parser.add_argument(
        "--image-data", type=Path, metavar="FILE", help="image_data.json: sizes, checked against the photos"
    )
    parser.add_argument(
        "--images",
        type=Path,
        nargs="+",
        default=[],
        metavar="DIR",
        help="folders of ID.jpg (VG_100K VG_100K_2)",
    )
    parser.add_argument(
        "--parse-only",
        action="store_true",
        help="no photos, no shards: write samples.jsonl, relations.txt and statistics.json",
    )
    add_output_arguments(parser)


def main(args: argparse.Namespace) -> int:
    """Run the command; returns the exit status."""
    files = Files(args.relationships, args.attributes, args.objects, args.image_data)
    exclude, faults = excluded(args.exclude), Faults("visual_genome", args.max_faults)
    if args.parse_only:
        print(as_text(parse_only(files, args.out, exclude=exclude, faults=faults)))
        report_faults(args.out, faults)
        return 0
    manifest, skipped = build(files, args.images, args.out, exclude=exclude, shard_size=args.shard_size, faults=faults)
    report(args.out, manifest, skipped, faults)
    return 0
