"""Visual Genome as a shard set: photos with the samples of relvlm/data/sources/scene_graphs.py, or those alone."""

from __future__ import annotations

import argparse
import json
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from relvlm.data.shards.schema import Sample
from relvlm.data.shards.store import RELATIONS, Encoded, check_free, write_shards
from relvlm.data.sources.raw import (
    PhotoFault,
    add_output_arguments,
    progress,
    read_ids,
    read_photo,
    report,
    sized_photo,
)
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
    exclude: Collection[str] = (),
    shard_size: int = 1000,
) -> tuple[dict[str, Any], list[str]]:
    """Write the shard set `out` from the photos `ID.jpg` in the folders `images`.

    Returns the manifest and the photos left out, each with its reason; UserError for unreadable input.
    """
    check_free(out)
    skipped: list[str] = []
    names = {k: v.name for k, v in vars(files).items() if v is not None}
    manifest = write_shards(
        out,
        _encoded(read_graphs(files, exclude), images, skipped),
        source="visual_genome",
        builder_args={**names, "excluded": len(exclude), "shard_size": shard_size},
        shard_size=shard_size,
        skipped=skipped,
    )
    return manifest, skipped


def _encoded(graphs: list[ImageGraph], images: Sequence[Path], skipped: list[str]) -> Iterator[Encoded]:
    for graph in progress(graphs, "visual genome"):
        try:
            photo, sample = _photo_and_sample(graph, images)
        except PhotoFault as fault:
            skipped.append(str(fault))
            continue
        yield graph.image_id.zfill(8), photo, sample
    if graphs and len(skipped) == len(graphs):
        places = ", ".join(map(str, images)) or "no folder given"
        raise UserError(
            f"{places}: none of the {len(graphs)} photos can be used, first: {skipped[0]} "
            "(check --images, or parse the annotation alone with --parse-only)"
        )


def _photo_and_sample(graph: ImageGraph, images: Sequence[Path]) -> tuple[bytes, Sample]:
    name = f"{graph.image_id}.jpg"
    photo, *size = read_photo(images, name)
    if graph.size:
        photo = sized_photo(images, name, *graph.size)
    sample = to_sample(graph, (size[0], size[1]))
    if sample is None:
        raise PhotoFault(f"{name}: no usable object in its annotation")
    return photo, sample


def parse_only(files: Files, out: Path, *, exclude: Collection[str] = ()) -> dict[str, Any]:
    """Write `samples.jsonl`, `relations.txt` and `statistics.json` into the new folder `out`, without photos.

    Returns the statistics (of `relvlm.data.tools.statistics.describe`); UserError for unreadable input.
    """
    check_free(out)
    samples = list(parse(read_graphs(files, exclude)))
    figures = describe(samples)
    out.mkdir(parents=True, exist_ok=True)
    with (out / "samples.jsonl").open("w", encoding="utf-8") as stream:
        stream.writelines(json.dumps(s.to_json(), ensure_ascii=False) + "\n" for s in samples)
    predicates = sorted({r.predicate for s in samples for r in s.relations})
    (out / RELATIONS).write_text("".join(p + "\n" for p in predicates), encoding="utf-8")
    (out / "statistics.json").write_text(json.dumps(figures, indent=2, ensure_ascii=False) + "\n")
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
    exclude = read_ids(args.exclude)
    if args.parse_only:
        print(as_text(parse_only(files, args.out, exclude=exclude)))
        return 0
    manifest, skipped = build(files, args.images, args.out, exclude=exclude, shard_size=args.shard_size)
    report(args.out, manifest, skipped)
    return 0
