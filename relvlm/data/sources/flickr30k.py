"""Flickr30K in Karpathy's splits (`dataset_flickr30k.json`); its training split alone, unless others are asked for."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

from relvlm.data.shards.schema import Sample
from relvlm.data.sources.building import add_output_arguments, build_and_report
from relvlm.data.sources.faults import Faults, LeftOut, RecordFault, shown
from relvlm.data.sources.fields import Record, mapping, required, text
from relvlm.data.sources.item import FilePhoto, Item, Size
from relvlm.data.sources.json_stream import nested_texts, value_of
from relvlm.data.sources.meter import Meter
from relvlm.data.sources.web import plain_caption

SPLITS = ("train", "val", "test")
EPILOG = """example:
  relvlm data build flickr30k --annotations dataset_flickr30k.json --images flickr30k-images --out data/flickr30k
"""


@dataclass(frozen=True)
class Flickr30k:
    """The photos of `splits`, five captions each."""

    annotations: Path
    images: Path
    splits: tuple[str, ...] = ("train",)
    name: str = "flickr30k"
    hint: str = "check --images"
    known_splits: ClassVar[tuple[str, ...]] = SPLITS

    def files(self) -> list[Path]:
        return [self.annotations]

    def arguments(self) -> dict[str, Any]:
        return {"annotations": self.annotations.name, "splits": list(self.splits)}

    def places(self) -> str:
        return str(self.images)

    def items(self, faults: Faults, meter: Meter) -> Iterator[Item]:
        """Photos in the file's order."""
        listed = enumerate(nested_texts(self.annotations, ("images",), meter))
        records = ((number, (record, words)) for number, (_, record, words) in listed)
        yield from faults.sound("image", records, self._item, f"{self.annotations.name}: images")

    def _item(self, listed: tuple[Any, str]) -> Item:
        """What a record names; its sentences are read where its shard is made."""
        record = mapping(listed[0])
        split = text(record, "split")
        if split not in self.known_splits:
            raise RecordFault(f"split: none of {', '.join(self.known_splits)}", shown(split))
        if split not in self.splits:
            raise LeftOut(f"of the {split} split")
        name = text(record, "filename")
        _sentences(record)
        stem = PurePosixPath(name).stem
        return Item(stem, stem, FilePhoto(name, (self.images,)), listed[1])

    def sample(self, item: Item, size: Size, faults: Faults) -> Sample:
        def read(record: Any) -> str:
            return plain_caption(text(mapping(record, "sentence"), "raw"))

        place = f"image {item.image_id}: sentences"
        sentences = _sentences(mapping(value_of(item.record)))
        captions = tuple(faults.sound("caption", enumerate(sentences), read, place))
        if not captions:
            raise LeftOut("no usable caption")
        return Sample(item.image_id, *size, self.name, captions)


def _sentences(record: Record) -> list[Any]:
    sentences = required(record, "sentences")
    if type(sentences) is not list:
        raise RecordFault("sentences: no list", shown(sentences))
    return sentences


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `relvlm data build flickr30k`."""
    parser.description = "Build a shard set of Flickr30K: photos with five captions."
    parser.epilog = EPILOG
    parser.add_argument("--annotations", type=Path, required=True, metavar="FILE", help="dataset_flickr30k.json")
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="folder of the photographs")
    parser.add_argument("--splits", nargs="+", choices=SPLITS, default=["train"], help="which of them (train)")
    add_output_arguments(parser)


def main(args: argparse.Namespace) -> int:
    """Run the command; returns the exit status."""
    return build_and_report(Flickr30k(args.annotations, args.images, tuple(args.splits)), args)
