"""Open Images: boxes and, where there are any, relationships and attributes ("is"), from its CSV files."""

from __future__ import annotations

import argparse
import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from relvlm.data.shards.schema import Entity, Relation, Sample
from relvlm.data.sources.building import add_output_arguments, build_and_report
from relvlm.data.sources.faults import Faults, LeftOut, RecordFault, shown
from relvlm.data.sources.fields import as_identifier
from relvlm.data.sources.item import FilePhoto, Item, Size
from relvlm.data.sources.meter import Meter
from relvlm.data.sources.raw import clipped, tidy
from relvlm.data.sources.spool import Spool, Spooling, filled, values
from relvlm.errors import UserError

EPILOG = """example:
  relvlm data build open_images --boxes oidv6-train-annotations-bbox.csv \\
      --relationships oidv6-train-annotations-vrd.csv --images train --max-side 512 --out data/open_images \\
      --labels class-descriptions-boxable.csv oidv6-attributes-description.csv
"""
PREDICATES = ("RelationshipLabel", "RelationLabel")  # by release
ATTRIBUTE = "is"
SIDES = ("XMin", "XMax", "YMin", "YMax")
KINDS = ("box", "relation")  # of rows: of the first file, of the second
Row = dict[str, str]


class Thing(NamedTuple):
    """A labelled box in shares of the photo's sides; equal in the two files, which is what joins them."""

    label: str
    box: tuple[float, ...]  # x0, x1, y0, y1


class Triplet(NamedTuple):
    """A relationship; of an attribute, `target` is the attribute with the subject's box."""

    subject: Thing
    predicate: str
    target: Thing


class Rows(NamedTuple):
    """An image's rows as the spool has them, and what all images share: the columns' names, the labels by code."""

    boxes: list[bytes]
    relationships: list[bytes]
    columns: tuple[list[str], ...]  # of the two files
    labels: dict[str, str]


@dataclass(frozen=True)
class OpenImages(Spooling):
    """The photos `ID.jpg` that the boxes or relationships name."""

    boxes: Path
    relationships: Path | None
    labels: tuple[Path, ...]
    images: Path
    name: str = "open_images"
    hint: str = "check --images"

    def files(self) -> list[Path]:
        return [self.boxes, *self.labels, *([] if self.relationships is None else [self.relationships])]

    def arguments(self) -> dict[str, Any]:
        return {"boxes": self.boxes.name, "relationships": self.relationships and self.relationships.name}

    def places(self) -> str:
        return str(self.images)

    def items(self, faults: Faults, meter: Meter) -> Iterator[Item]:
        """Images in the order of the boxes' file, then those that have relationships alone."""
        labels, without_image = read_labels(self.labels), Faults(self.name)
        columns = tuple([] if file is None else header(file) for file in (self.boxes, self.relationships))
        spool = filled(self.spool, self._fill, without_image)
        meter.total = spool.count("box")
        for image in spool.images():
            faults.read["image"] += 1
            meter.done += 1
            rows = Rows(spool.blobs("box", image), spool.blobs("relation", image), columns, labels)
            yield Item(image, image, FilePhoto(f"{image}.jpg", (self.images,)), rows)
        faults.include(without_image.to_json())  # at the end, when the others of their kind are counted

    def _fill(self, spool: Spool, faults: Faults) -> None:
        for kind, file in zip(KINDS, (self.boxes, self.relationships), strict=True):
            if file is not None:
                _fill(spool, kind, file, faults)

    def sample(self, item: Item, size: Size, faults: Faults) -> Sample:
        boxes, triplets = self._read(item.record, faults)
        things = [*boxes, *(end for t in triplets for end in _ends(t))]
        entities = _entities(dict.fromkeys(things), size, f"image {item.image_id}", faults)
        if not entities:
            raise LeftOut("no usable box")
        relations: dict[Relation, None] = {}
        for subject, predicate, target in triplets:
            if subject not in entities or (predicate != ATTRIBUTE and target not in entities):
                continue  # its box was counted
            entity = entities[subject]
            if predicate == ATTRIBUTE:
                attributes = tuple(dict.fromkeys([*entity.attributes, target.label]))
                entities[subject] = replace(entity, attributes=attributes)
            elif subject != target:
                relations[Relation(entity.id, predicate, entities[target].id)] = None
        return Sample(item.image_id, *size, self.name, (), tuple(entities.values()), tuple(relations))

    def _read(self, rows: Rows, faults: Faults) -> tuple[list[Thing], list[Triplet]]:
        def row_of(kind: int, cells: list[str]) -> Row:
            return dict(zip(rows.columns[kind], cells, strict=True))

        def box(cells: list[str]) -> Thing:
            return thing(row_of(0, cells), "", rows.labels, SIDES)

        def relation(cells: list[str]) -> Triplet:
            return triplet(row_of(1, cells), rows.labels)

        boxes = list(faults.sound("box", values(rows.boxes), box, self.boxes.name))
        where = self.relationships.name if self.relationships else ""
        return boxes, list(faults.sound("relation", values(rows.relationships), relation, where))


def _ends(found: Triplet) -> tuple[Thing, ...]:
    return (found.subject,) if found.predicate == ATTRIBUTE else (found.subject, found.target)


def _entities(things: dict[Thing, None], size: Size, place: str, faults: Faults) -> dict[Thing, Entity]:
    width, height = size

    def read(numbered: tuple[int, Thing]) -> tuple[Thing, Entity]:
        number, found = numbered
        x0, x1, y0, y1 = found.box
        xywh = x0 * width, y0 * height, (x1 - x0) * width, (y1 - y0) * height
        return found, Entity(str(number), found.label, clipped(xywh, width, height))

    return dict(faults.sound("entity", ((n, (n, found)) for n, found in enumerate(things)), read, place))


def thing(row: Row, end: str, labels: dict[str, str], sides: tuple[str, ...]) -> Thing:
    """The label and box of a row, or of its `end` (1, 2)."""
    if not end and row.get("IsGroupOf") == "1":
        raise LeftOut("a group")
    x0, x1, y0, y1 = box = tuple(share_of(row, side + end) for side in sides)
    if x1 < x0 or y1 < y0:
        raise RecordFault("a box of negative size", shown(box))
    return Thing(label(row, f"LabelName{end}", labels), box)


def triplet(row: Row, labels: dict[str, str]) -> Triplet:
    """The relationship of a row."""
    name = next((name for name in PREDICATES if row.get(name)), PREDICATES[0])
    predicate = tidy(cell(row, name)).replace("_", " ")
    return Triplet(thing(row, "1", labels, SIDES), predicate, thing(row, "2", labels, SIDES))


def cell(row: Row, name: str) -> str:
    """A cell that is there; raises RecordFault."""
    value = row.get(name)
    if not value or not value.strip():
        raise RecordFault(f"{name}: missing")
    return value


def label(row: Row, name: str, labels: dict[str, str]) -> str:
    """The name of a label's code (/m/011k07)."""
    code = cell(row, name)
    if code not in labels:
        raise RecordFault(f"{name}: no such label in --labels", shown(code))
    return labels[code]


def share_of(row: Row, name: str) -> float:
    """A share of the photo's side."""
    try:
        value = float(cell(row, name))
    except ValueError as error:
        raise RecordFault(f"{name}: no number", shown(row[name])) from error
    if not math.isfinite(value) or not -0.01 <= value <= 1.01:
        raise RecordFault(f"{name}: no share of the photo's side", shown(value))
    return value


def read_labels(files: tuple[Path, ...]) -> dict[str, str]:
    """Code -> name, of files without or with a header; raises UserError."""
    found: dict[str, str] = {}
    for file in files:
        for row in csv_rows(file):
            if len(row) != 2 or not tidy(row[1]):
                raise UserError(f"{file}: {shown(row)} is no label and its name (is it another file?)")
            found[row[0]] = tidy(row[1])
    return found


def csv_rows(file: Path) -> Iterator[list[str]]:
    """The rows of a CSV file; raises UserError."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            yield from csv.reader(stream)
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror} (check the path)") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{file}: no CSV file in UTF-8: {error} (download it again)") from error


def header(file: Path) -> list[str]:
    """The names of its columns; raises UserError."""
    columns = next(csv_rows(file), [])
    if "ImageID" not in columns:
        raise UserError(f"{file}: no column ImageID (is it another file?)")
    return columns


def _fill(spool: Spool, kind: str, file: Path, faults: Faults) -> None:
    """Put (place in the file, cells) by ImageID; a row without one is a fault, others are read with their image."""
    columns, rows = header(file), csv_rows(file)
    at = columns.index("ImageID")
    next(rows)
    for number, cells in enumerate(rows):
        try:
            if len(cells) != len(columns):
                raise RecordFault(f"not {len(columns)} columns", shown(cells))
            image = as_identifier(cell({"ImageID": cells[at]}, "ImageID"), "ImageID")
        except RecordFault as fault:
            faults.read[kind] += 1
            faults.add(kind, f"{file.name}[{number}]", fault)
        else:
            spool.put(kind, image, (number, cells))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `relvlm data build open_images`."""
    parser.description = "Build a shard set of Open Images: photos with boxes, attributes and relations."
    parser.epilog = EPILOG
    parser.add_argument("--boxes", type=Path, required=True, metavar="FILE", help="*-annotations-bbox.csv")
    parser.add_argument("--relationships", type=Path, metavar="FILE", help="*-annotations-vrd.csv")
    parser.add_argument("--labels", type=Path, nargs="+", required=True, metavar="FILE", help="code, name")
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="folder of ID.jpg")
    add_output_arguments(parser)


def main(args: argparse.Namespace) -> int:
    """Run the command; returns the exit status."""
    return build_and_report(OpenImages(args.boxes, args.relationships, tuple(args.labels), args.images), args)
