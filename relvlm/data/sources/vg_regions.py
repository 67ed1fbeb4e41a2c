"""Visual Genome's region descriptions: as captions of the photo, or as regions (VG_RD), each phrase with its box."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from relvlm.data.arguments import positive
from relvlm.data.shards.schema import Entity, Sample
from relvlm.data.sources.building import add_output_arguments, build_and_report
from relvlm.data.sources.faults import Faults, LeftOut, RecordFault, shown
from relvlm.data.sources.fields import Record, as_identifier, identifier, mapping, required, text
from relvlm.data.sources.item import Item, Size
from relvlm.data.sources.json_stream import list_texts, value_of
from relvlm.data.sources.meter import Meter
from relvlm.data.sources.raw import clipped, read_xywh
from relvlm.data.sources.spool import SeenNames
from relvlm.data.sources.visual_genome import vg_item

EPILOG = """examples:
  relvlm data build vg_regions --regions region_descriptions.json --images VG_100K VG_100K_2 \\
      --as captions --out data/vg
  relvlm data build vg_regions --regions region_descriptions.json --images VG_100K VG_100K_2 \\
      --as regions --out data/vg_rd
"""
BOX = ("x", "y", "width", "height")


@dataclass(frozen=True)
class VgRegions:
    """The photos `ID.jpg` in the folders `images`, with their phrases as `kind` (captions or regions) says."""

    regions: Path
    images: tuple[Path, ...]
    kind: str
    most: int | None = None  # phrases of an image
    name: str = "vg_regions"
    hint: str = "check --images"

    def files(self) -> list[Path]:
        return [self.regions]

    def arguments(self) -> dict[str, Any]:
        return {"regions": self.regions.name, "as": self.kind, "most": self.most}

    def places(self) -> str:
        return ", ".join(map(str, self.images))

    def items(self, faults: Faults, meter: Meter) -> Iterator[Item]:
        """Images in the file's order; of one that stands twice the first, the others are faults."""
        found = SeenNames()

        def read(listed: tuple[Any, str]) -> Item:
            record = mapping(listed[0])
            _regions_of(record)
            image = as_identifier(record.get("image_id", record.get("id")), "image_id")  # 1.4 has `id` here
            if not found.add(image):
                raise RecordFault("image_id: stands twice", image)
            return vg_item(image, self.images, listed[1])

        yield from faults.sound("image", enumerate(list_texts(self.regions, meter)), read, self.regions.name)

    def sample(self, item: Item, size: Size, faults: Faults) -> Sample:
        regions = _regions_of(mapping(value_of(item.record)))
        place = f"image {item.image_id}: regions"
        if self.kind == "captions":
            return Sample(item.image_id, *size, self.name, _phrases(regions, place, faults)[: self.most])
        return Sample(item.image_id, *size, self.name, (), _regions(regions, place, size, faults)[: self.most])


def _regions_of(record: Record) -> list[Any]:
    regions = required(record, "regions")
    if type(regions) is not list:
        raise RecordFault("regions: no list", shown(regions))
    return regions


def phrase(record: Any) -> str:
    """A region's phrase with single spaces."""
    words = " ".join(text(mapping(record, "region"), "phrase").split())
    if not words:
        raise LeftOut("phrase: empty")
    return words


def _phrases(regions: list[Any], place: str, faults: Faults) -> tuple[str, ...]:
    """Each phrase once; LeftOut of the image where there is none."""
    found = tuple(dict.fromkeys(faults.sound("region", enumerate(regions), phrase, place)))
    return found or _nothing()


def _regions(regions: list[Any], place: str, size: Size, faults: Faults) -> tuple[Entity, ...]:
    found: set[str] = set()

    def read(record: Any) -> Entity:
        words, name = phrase(record), identifier(record, "region_id")
        box = clipped(read_xywh([required(record, k) for k in BOX], BOX), *size)
        if name in found:
            raise RecordFault("region_id: another region of its image has it", name)
        found.add(name)
        return Entity(name, words, box)

    return tuple(faults.sound("region", enumerate(regions), read, place)) or _nothing()


def _nothing() -> Any:
    raise LeftOut("no usable region")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `relvlm data build vg_regions`."""
    parser.description = "Build a shard set of Visual Genome's region descriptions."
    parser.epilog = EPILOG
    parser.add_argument("--regions", type=Path, required=True, metavar="FILE", help="region_descriptions.json")
    parser.add_argument(
        "--images", type=Path, nargs="+", required=True, metavar="DIR", help="folders of ID.jpg (VG_100K VG_100K_2)"
    )
    parser.add_argument(
        "--as",
        dest="kind",
        choices=("captions", "regions"),
        required=True,
        help="phrases as captions of the whole photo, or each as the label of its box",
    )
    parser.add_argument("--most", type=positive, metavar="N", help="keep the first N phrases of an image (all)")
    add_output_arguments(parser)


def main(args: argparse.Namespace) -> int:
    """Run the command; returns the exit status."""
    return build_and_report(VgRegions(args.regions, tuple(args.images), args.kind, args.most), args)
