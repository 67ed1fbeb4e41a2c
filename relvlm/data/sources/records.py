"""Any photos with a JSONL: each line the photo's file and a sample (relvlm/data/shards/schema.py), read strictly."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from relvlm.data.json_keys import loads_unique
from relvlm.data.shards.schema import SCHEMA_VERSION, Sample, SchemaError
from relvlm.data.sources.building import add_output_arguments, build_and_report
from relvlm.data.sources.faults import Faults, RecordFault, shown
from relvlm.data.sources.fields import mapping, text
from relvlm.data.sources.item import FilePhoto, Item, Size
from relvlm.data.sources.lines import numbered_lines
from relvlm.data.sources.meter import Meter
from relvlm.data.sources.raw import check_size

EPILOG = """A line is {"image": FILE} and any of the fields of a sample: image_id (else the file's name without its
ending), width and height (checked against the photo where they are there), captions, entities
[{id, label, attributes, box: [x0, y0, x1, y1]}], relations [{subject, predicate, object, provenance}]. Other fields are
faults, and so is a predicate that is empty or has other than single spaces. Machine-made scene graphs
(Synthetic Visual Genome's and the like) come in this way: one line a graph. `--overlap` knows an image by its
id, where --source says whose that is (coco, visual_genome, flickr30k), or by its folder (val2014/, VG_100K/).

example:
  relvlm data build records --jsonl mine.jsonl --images photos --out data/mine
"""


@dataclass(frozen=True)
class Records:
    """The photos that the lines of `jsonl` name."""

    jsonl: Path
    images: Path
    name: str = "records"
    hint: str = "check --images"

    def files(self) -> list[Path]:
        return [self.jsonl]

    def arguments(self) -> dict[str, Any]:
        return {"jsonl": self.jsonl.name, "source": self.name}

    def places(self) -> str:
        return str(self.images)

    def items(self, faults: Faults, meter: Meter) -> Iterator[Item]:
        lines = ((number, (number, line)) for number, line in numbered_lines(self.jsonl, meter))
        yield from faults.sound("image", lines, self._item, self.jsonl.name)

    def _item(self, numbered: tuple[int, bytes]) -> Item:
        """What a line names; the rest of it is read where its shard is made."""
        number, line = numbered
        record = _mapping(line, json.loads)
        name = text(record, "image")
        image = text(record, "image_id") if "image_id" in record else PurePosixPath(name).stem
        return Item(image, f"{number:09d}", FilePhoto(name, (self.images,)), line)

    def sample(self, item: Item, size: Size, faults: Faults) -> Sample:
        try:
            record = _mapping(item.record, loads_unique)
            sample = checked({"width": size[0], "height": size[1], **record})
        except RecordFault as fault:
            raise RecordFault(fault.reason, f"line {int(item.key) + 1}: {fault.detail}") from fault
        check_size(item.photo.name, size, (sample.width, sample.height))
        return replace(sample, source=sample.source or self.name)


def _mapping(line: bytes, loads: Callable[[bytes], Any]) -> dict[str, Any]:
    try:
        return mapping(loads(line))
    except (ValueError, RecursionError) as error:
        raise RecordFault("not valid JSON", str(error)) from error


def checked(record: dict[str, Any]) -> Sample:
    """The line's sample; raises RecordFault naming the field at fault."""
    fields = {k: v for k, v in record.items() if k != "image"}
    name = PurePosixPath(record["image"]).stem
    try:
        sample = Sample.from_json({"schema": SCHEMA_VERSION, "image_id": name, **fields})
    except SchemaError as error:
        field, _, detail = str(error).partition(": ")
        raise RecordFault(f"{''.join('n' if c.isdigit() else c for c in field)}: no sample", detail) from error
    odd = next((r.predicate for r in sample.relations if not is_line(r.predicate)), None)
    if odd is not None:
        raise RecordFault("relations[n].predicate: empty, or not with single spaces", shown(odd))
    return sample


def is_line(predicate: str) -> bool:
    """Whether it is one line of relations.txt, and read from there as it is."""
    return predicate != "" and " ".join(predicate.split()) == predicate


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `relvlm data build records`."""
    parser.description = "Build a shard set of a folder of photos and a JSONL of samples."
    parser.epilog = EPILOG
    parser.add_argument("--jsonl", type=Path, required=True, metavar="FILE", help="a sample a line")
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="folder that the files are in")
    parser.add_argument(
        "--source", default="records", metavar="NAME", help="what the samples say they are of (records)"
    )
    add_output_arguments(parser)


def main(args: argparse.Namespace) -> int:
    """Run the command; returns the exit status."""
    return build_and_report(Records(args.jsonl, args.images, args.source), args)
