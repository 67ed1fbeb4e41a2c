"""Objects365: photos with the boxes of 365 categories, in COCO's form."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from relvlm.data.shards.schema import Sample
from relvlm.data.sources.building import add_output_arguments, build_and_report
from relvlm.data.sources.coco import Coco
from relvlm.data.sources.faults import Faults
from relvlm.data.sources.item import FilePhoto, Item, Size
from relvlm.data.sources.meter import Meter

EPILOG = """example:
  relvlm data build objects365 --annotations zhiyuan_objv2_train.json --images train --max-side 512 \\
      --processes 16 --out data/objects365      # train/patch0/objects365_v1_00000000.jpg, ...
"""


@dataclass(frozen=True)
class Objects365(Coco):
    """COCO's form; of `images/v1/patch8/NAME.jpg` the archives have `patch8/NAME.jpg`."""

    name: str = "objects365"

    def items(self, faults: Faults, meter: Meter) -> Iterator[Item]:
        for item in super().items(faults, meter):
            parts = PurePosixPath(item.photo.name).parts
            below = "/".join(parts[-2:]) if parts[:1] == ("images",) else item.photo.name
            yield item._replace(photo=FilePhoto(below, (self.images,)))

    def sample(self, item: Item, size: Size, faults: Faults) -> Sample:
        return replace(super().sample(item, size, faults), source=self.name)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `relvlm data build objects365`."""
    parser.description = "Build a shard set of Objects365: photos with the boxes of 365 categories."
    parser.epilog = EPILOG
    parser.add_argument("--annotations", type=Path, required=True, metavar="FILE", help="zhiyuan_objv2_train.json")
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="folder of patch0, patch1, ...")
    add_output_arguments(parser)


def main(args: argparse.Namespace) -> int:
    """Run the command; returns the exit status."""
    return build_and_report(Objects365(None, args.annotations, args.images), args)
