"""COCO: photographs with captions and with the boxes of 80 categories (captions_*.json, instances_*.json)."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from relvlm.data.image_ids import image_id
from relvlm.data.shards.schema import Entity, Sample
from relvlm.data.sources.building import add_output_arguments, build_and_report
from relvlm.data.sources.driver import Driver, Options
from relvlm.data.sources.faults import Faults, LeftOut, RecordFault, shown
from relvlm.data.sources.fields import Record, id_order, identifier, mapping, required, side, text
from relvlm.data.sources.item import FilePhoto, Item, Size
from relvlm.data.sources.json_stream import nested_items
from relvlm.data.sources.meter import Meter
from relvlm.data.sources.raw import check_size, clipped, read_xywh, tidy
from relvlm.data.sources.spool import Spool
from relvlm.errors import UserError

EPILOG = """example:
  relvlm data build coco --captions annotations/captions_train2017.json \\
      --instances annotations/instances_train2017.json --images train2017 --out data/coco
  relvlm data relate data/coco data/coco_spatial     # spatial relations from the boxes
"""
BBOX = ("bbox",) * 4
NOTHING: Record = {"images": [], "annotations": [], "categories": []}
T = TypeVar("T")


class Photo(NamedTuple):
    """What a file says of an image."""

    id: str
    file_name: str
    width: int
    height: int


@dataclass(frozen=True)
class Coco:
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

    def items(self, faults: Faults, meter: Meter) -> Iterator[Item]:
        alike = len({file.name for file in self.files()}) < len(self.files())
        names = [str(f) if alike else f.name if f else "none" for f in (self.captions, self.instances)]
        files = self.captions or NOTHING, self.instances or NOTHING
        for name, sample in parse(*files, faults, (names[0], names[1]), meter):
            yield Item(sample.image_id, sample.image_id.zfill(12), FilePhoto(name, (self.images,)), sample)

    def sample(self, item: Item, size: Size, faults: Faults) -> Sample:
        sample: Sample = item.record
        check_size(item.photo.name, size, (sample.width, sample.height))
        return sample


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


def parse(
    captions: Record | Path,
    instances: Record | Path,
    faults: Faults | None = None,
    files: tuple[str, str] = ("captions", "instances"),
    meter: Meter | None = None,
) -> Iterator[tuple[str, Sample]]:
    """(file name, sample) of each image in either file, by image id; crowds and degenerate boxes are left out.

    Captions and boxes are put together by image on disk. What cannot be used goes into `faults`, under the names of
    the files. Raises UserError for a file that is none of COCO's.
    """
    faults = faults or Faults("coco")
    contents = list(zip(files, (captions, instances), strict=True))
    photos = _photos([(name, _list(content, "images")) for name, content in contents], faults)
    stated = {_stated_id(record) for _, content in contents for record in _list(content, "images")}
    known = _Known(photos, stated, _categories(instances, files[1]))
    spool = Spool()
    _spool(captions, "caption", known.caption, files[0], faults, spool, meter)
    _spool(instances, "box", known.box, files[1], faults, spool, meter)
    for photo in sorted(photos.values(), key=lambda photo: id_order(photo.id)):
        texts, boxes = (_of_image(spool, kind, photo.id) for kind in ("caption", "box"))
        entities = _unrepeated(boxes, f"{files[1]}: annotations", faults)
        sample = Sample(photo.id, photo.width, photo.height, "coco", tuple(text for *_, text in texts), entities)
        yield photo.file_name, sample


def _list(file: Any, name: str, meter: Meter | None = None) -> Iterable[Any]:
    """The records of a file's list, read one by one where the file is a path."""
    if isinstance(file, Path):
        return nested_items(file, name, meter, whole=name == "annotations")
    try:
        records = required(mapping(file, "top level"), name)
    except RecordFault as fault:
        missing = f"'{name}' is missing" if fault.reason == f"{name}: missing" else str(fault)
        raise UserError(f"COCO annotation: {missing} (is this a captions and an instances file?)") from fault
    if not isinstance(records, list):
        raise UserError(f"COCO annotation: {name}: {shown(records)} is no list")
    return records


def _photos(stated: list[tuple[str, Iterable[Any]]], faults: Faults) -> dict[str, Photo]:
    """By image id; an image of which the files say different things is left out."""
    photos: dict[str, Photo] = {}
    contradicted: set[str] = set()
    for name, records in stated:
        for photo in faults.sound("image", enumerate(records), _photo, f"{name}: images"):
            before = photos.setdefault(photo.id, photo)
            if before is not photo and not _agree(before, photo) and photo.id not in contradicted:
                contradicted.add(photo.id)
                detail = f"{before.file_name} {before[2:]} and {photo.file_name} {photo[2:]}"
                faults.add("image", f"image {photo.id}", RecordFault("described twice, not alike", detail))
    return {i: photo for i, photo in photos.items() if i not in contradicted}


def _photo(record: Any) -> Photo:
    record = mapping(record)
    return Photo(identifier(record, "id"), text(record, "file_name"), side(record, "width"), side(record, "height"))


def _agree(a: Photo, b: Photo) -> bool:
    """Size and photo are the same, however its name is spelt (000000000042.jpg, COCO_val2014_000000000042.jpg)."""
    return a[2:] == b[2:] and image_id(a.file_name).id == image_id(b.file_name).id


def _stated_id(record: Any) -> str:
    try:
        return identifier(mapping(record), "id")
    except RecordFault:
        return ""


def _categories(instances: Record | Path, name: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for number, record in enumerate(_list(instances, "categories")):
        try:
            category, label = identifier(mapping(record), "id"), tidy(text(record, "name"))
        except RecordFault as fault:
            raise UserError(f"{name}: categories[{number}]: {fault} (every box of it would be wrong)") from fault
        if not label or found.setdefault(category, label) != label:
            raise UserError(f"{name}: categories[{number}]: id {category} has no name, or another one before")
    return found


class _Known:
    """Readers of annotation records, which name images and categories."""

    def __init__(self, photos: dict[str, Photo], stated: set[str], categories: dict[str, str]) -> None:
        self.photos, self.stated, self.categories = photos, stated, categories

    def caption(self, record: Any) -> tuple[Photo, str, str]:
        """(photo, annotation id, caption)"""
        photo = self._photo_of(mapping(record))
        caption = " ".join(text(record, "caption").split())
        if not caption:
            raise LeftOut("caption: empty")
        return photo, identifier(record, "id"), caption

    def box(self, record: Any) -> tuple[Photo, str, Entity]:
        """(photo, annotation id, entity)"""
        photo = self._photo_of(mapping(record))
        if _crowd(record):
            raise LeftOut("a crowd")
        name, category, corners = identifier(record, "id"), identifier(record, "category_id"), _bbox(record)
        if category not in self.categories:
            raise RecordFault("category_id: names no category", category)
        entity = Entity(name, self.categories[category], clipped(corners, photo.width, photo.height))
        return photo, name, entity

    def _photo_of(self, record: Record) -> Photo:
        image = identifier(record, "image_id")
        if image in self.photos:
            return self.photos[image]
        if image in self.stated:
            raise LeftOut("its image is left out")
        raise RecordFault("image_id: names no image", image)


def _crowd(record: Record) -> bool:
    value = record.get("iscrowd")
    if value is not None and value not in (0, 1):
        raise RecordFault("iscrowd: neither 0 nor 1", shown(value))
    return bool(value)


def _bbox(record: Record) -> tuple[float, float, float, float]:
    values = required(record, "bbox")
    if type(values) is not list or len(values) != 4:
        raise RecordFault("bbox: no list of four numbers", shown(values))
    return read_xywh(values, BBOX)


def _spool(
    file: Record | Path,
    kind: str,
    read: Callable[[Any], tuple[Photo, str, T]],
    name: str,
    faults: Faults,
    spool: Spool,
    meter: Meter | None,
) -> None:
    """Keep (annotation id, its place in the file, what `read` makes of it) by image."""

    def numbered(record: tuple[int, Any]) -> tuple[str, tuple[str, int, T]]:
        photo, annotation, value = read(record[1])
        return photo.id, (annotation, record[0], value)

    records = ((n, (n, record)) for n, record in enumerate(_list(file, "annotations", meter)))
    for image, value in faults.sound(kind, records, numbered, f"{name}: annotations"):
        spool.put(kind, image, value)


def _of_image(spool: Spool, kind: str, image: str) -> list[tuple[str, int, Any]]:
    """An image's annotations in the order of their ids."""
    return sorted(spool.get(kind, image), key=lambda found: (id_order(found[0]), found[1]))


def _unrepeated(boxes: list[tuple[str, int, Entity]], place: str, faults: Faults) -> tuple[Entity, ...]:
    """The first box of each id; the others are faults."""
    found: dict[str, Entity] = {}
    for name, number, entity in boxes:
        if name in found:
            faults.add("box", f"{place}[{number}]", RecordFault("id: another box of its image has it", name))
        found.setdefault(name, entity)
    return tuple(found.values())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `relvlm data build coco`."""
    parser.description = "Build a shard set of COCO photographs with their captions and boxes."
    parser.epilog = EPILOG
    parser.add_argument("--captions", type=Path, metavar="FILE", help="captions_*.json")
    parser.add_argument("--instances", type=Path, metavar="FILE", help="instances_*.json; one of the two, or both")
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="folder of the photographs")
    add_output_arguments(parser)


def main(args: argparse.Namespace) -> int:
    """Run the command; returns the exit status."""
    if args.captions is None and args.instances is None:
        raise UserError("neither --captions nor --instances (give one of them, or both)")
    return build_and_report(Coco(args.captions, args.instances, args.images), args)
