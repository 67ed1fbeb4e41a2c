"""Visual Genome as a shard set: photos with the samples of relvlm/data/sources/scene_graphs.py, or those alone."""

from __future__ import annotations

import argparse
import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from relvlm.data.image_ids import DATASETS, ImageList
from relvlm.data.shards.schema import Sample
from relvlm.data.shards.store import LOG, RELATIONS, check_free, new_folder, write_lines
from relvlm.data.sources.building import add_output_arguments, build_and_report, excluded, report_faults
from relvlm.data.sources.driver import Driver, Options
from relvlm.data.sources.faults import Faults
from relvlm.data.sources.item import FilePhoto, Item, Size
from relvlm.data.sources.meter import Meter
from relvlm.data.sources.raw import PhotoFault, check_size
from relvlm.data.sources.scene_graphs import Files, graph_of, parse, read_graphs, stored_graphs, to_sample
from relvlm.data.sources.spool import Spooling
from relvlm.data.statistics import as_text, describe
from relvlm.errors import UserError

EPILOG = """examples:
  relvlm data build visual_genome --relationships relationships.json --attributes attributes.json \\
      --image-data image_data.json --images VG_100K VG_100K_2 --out data/vg
  relvlm data build visual_genome --relationships relationships.json --parse-only --out data/vg_parsed
"""


@dataclass(frozen=True)
class VisualGenome(Spooling):
    """The photos `ID.jpg` in the folders `images` that the relationships name."""

    annotation: Files
    images: tuple[Path, ...]
    name: str = "visual_genome"
    hint: str = "check --images, or parse the annotation alone with --parse-only"

    def files(self) -> list[Path]:
        return [file for file in vars(self.annotation).values() if file is not None]

    def arguments(self) -> dict[str, Any]:
        return {k: v.name for k, v in vars(self.annotation).items() if v is not None}

    def places(self) -> str:
        return ", ".join(map(str, self.images))

    def items(self, faults: Faults, meter: Meter) -> Iterator[Item]:
        for stored in stored_graphs(self.annotation, faults, meter, self.spool):
            yield vg_item(stored.image_id, self.images, stored)

    def sample(self, item: Item, size: Size, faults: Faults) -> Sample:
        graph = graph_of(item.record, self.annotation, faults)
        if graph.size:
            check_size(item.photo.name, size, graph.size)
        sample = to_sample(graph, faults, size)
        if sample is None:
            raise PhotoFault(item.photo.name, "no usable object in its annotation")
        return sample


def vg_item(image_id: str, images: tuple[Path, ...], record: Any) -> Item:
    """The item of an image of Visual Genome."""
    return Item(image_id, image_id.zfill(8), FilePhoto(f"{image_id}.jpg", images), record)


def build(
    files: Files,
    images: Sequence[Path],
    out: Path,
    *,
    faults: Faults | None = None,
    options: Options = Options(),  # noqa: B008
) -> tuple[dict[str, Any], int]:
    """Write the shard set `out`; returns its manifest and how many photos were left out (`skipped.txt`).

    Records that cannot be used go into `faults`. UserError for unreadable input, too many faults or a taken `out`.
    """
    return Driver(VisualGenome(files, tuple(images)), faults or Faults("visual_genome"), options).build(out)


def parse_only(
    files: Files, out: Path, *, exclude: Collection[str | int] = (), faults: Faults | None = None
) -> dict[str, Any]:
    """Write `samples.jsonl`, `relations.txt` and `statistics.json` into the new folder `out`, without photos.

    Returns the statistics (of `relvlm.data.statistics.describe`). Records that cannot be used go into `faults`.
    UserError for unreadable input or too many faults.
    """
    check_free(out)
    faults = faults or Faults("visual_genome")
    unwanted = ImageList(exclude, DATASETS["visual_genome"])
    graphs = (g for g in read_graphs(files, faults) if not unwanted.has(g.image_id, f"{g.image_id}.jpg"))
    samples = list(parse(graphs, faults))
    warning = unwanted.check("--exclude", "visual_genome")
    faults.notes += [f"warning: {warning}"] if warning else []
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
    if not args.parse_only:
        return build_and_report(VisualGenome(files, tuple(args.images)), args)
    of_photos = [flag for flag in ("overlap", "unlike", "max_side") if getattr(args, flag)]
    if of_photos:
        named = ", ".join(f"--{flag.replace('_', '-')}" for flag in of_photos)
        raise UserError(
            f"{named}: not with --parse-only (it looks at no photo; --exclude leaves images out by their ids)"
        )
    faults = Faults("visual_genome", args.max_faults)
    print(as_text(parse_only(files, args.out, exclude=excluded(args.exclude), faults=faults)))
    report_faults(args.out, faults)
    return 0
