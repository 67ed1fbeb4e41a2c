"""COCO: photographs with captions and with the boxes of 80 categories (captions_*.json, instances_*.json)."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from relvlm.data.shards.schema import Sample
from relvlm.data.sources.building import add_output_arguments, build_and_report
from relvlm.data.sources.coco_annotations import NOTHING, described, to_sample
from relvlm.data.sources.driver import Driver, Options
from relvlm.data.sources.faults import Faults
from relvlm.data.sources.fields import identifier
from relvlm.data.sources.flickr30k import SPLITS, Flickr30k
from relvlm.data.sources.item import FilePhoto, Item, Size
from relvlm.data.sources.meter import Meter
from relvlm.data.sources.raw import check_size
from relvlm.data.sources.spool import Spooling
from relvlm.errors import UserError

EPILOG = """examples:
  relvlm data build coco --captions annotations/captions_train2017.json \\
      --instances annotations/instances_train2017.json --images train2017 --out data/coco
  relvlm data relate data/coco data/coco_spatial     # spatial relations from the boxes
  relvlm data build coco --karpathy dataset_coco.json --images coco --out data/coco   # coco/train2014, coco/val2014
"""


@dataclass(frozen=True)
class Coco(Spooling):
    """The photos that either file describes."""

    captions: Path | None
    instances: Path | None
    images: Path
    name: str = "coco"
    hint: str = "check --images"

    def files(self) -> list[Path]:
        return [file for file in (self.captions, self.instances) if file is not None]

    def arguments(self) -> dict[str, Any]:
        return {k: f and f.name for k, f in (("captions", self.captions), ("instances", self.instances))}

    def places(self) -> str:
        return str(self.images)

    def _names(self) -> tuple[str, str]:
        """What faults call the two files."""
        alike = len({file.name for file in self.files()}) < len(self.files())
        captions, instances = (str(f) if alike else f.name if f else "none" for f in (self.captions, self.instances))
        return captions, instances

    def items(self, faults: Faults, meter: Meter) -> Iterator[Item]:
        files = self.captions or NOTHING, self.instances or NOTHING
        for found in described(*files, faults, self._names(), meter, self.spool):
            photo = FilePhoto(found.photo.file_name, (self.images,))
            yield Item(found.photo.id, found.photo.id.zfill(12), photo, found)

    def sample(self, item: Item, size: Size, faults: Faults) -> Sample:
        photo = item.record.photo
        check_size(item.photo.name, size, (photo.width, photo.height))
        return to_sample(item.record, self._names(), faults)


@dataclass(frozen=True)
class CocoSplits(Flickr30k):
    """The photos of Karpathy's splits (dataset_coco.json), five captions each, under COCO's ids."""

    splits: tuple[str, ...] = ("train", "restval")
    name: str = "coco"
    known_splits: ClassVar[tuple[str, ...]] = (*SPLITS, "restval")

    def _item(self, listed: tuple[Any, str]) -> Item:
        item = super()._item(listed)
        image = identifier(listed[0], "cocoid")
        folders = self.images, self.images / "train2014", self.images / "val2014"
        return Item(image, image.zfill(12), FilePhoto(item.photo.name, folders), item.record)


def build(
    captions: Path | None,
    instances: Path | None,
    images: Path,
    out: Path,
    *,
    faults: Faults | None = None,
    options: Options = Options(),  # noqa: B008
) -> tuple[dict[str, Any], int]:
    """Write the shard set `out`; returns its manifest and how many photos were left out (`skipped.txt`).

    An image is taken if either file describes it. Records that cannot be used go into `faults`. UserError for
    unreadable input, too many faults or a taken `out`.
    """
    return Driver(Coco(captions, instances, images), faults or Faults("coco"), options).build(out)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `relvlm data build coco`."""
    parser.description = "Build a shard set of COCO photographs with their captions and boxes."
    parser.epilog = EPILOG
    parser.add_argument("--captions", type=Path, metavar="FILE", help="captions_*.json")
    parser.add_argument("--instances", type=Path, metavar="FILE", help="instances_*.json; one of the two, or both")
    parser.add_argument("--karpathy", type=Path, metavar="FILE", help="dataset_coco.json, in place of the two")
    parser.add_argument(
        "--splits", nargs="+", choices=CocoSplits.known_splits, default=["train", "restval"], help="of --karpathy's"
    )
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="folder of the photographs")
    add_output_arguments(parser)


def main(args: argparse.Namespace) -> int:
    """Run the command; returns the exit status."""
    if args.captions is None and args.instances is None and args.karpathy is None:
        raise UserError("neither --captions nor --instances (give one of them, or both, or --karpathy)")
    if args.karpathy is not None:
        if args.captions or args.instances:
            raise UserError("--karpathy goes without --captions and --instances (build both, then `relvlm data merge`)")
        return build_and_report(CocoSplits(args.karpathy, args.images, tuple(args.splits)), args)
    return build_and_report(Coco(args.captions, args.instances, args.images), args)
