"""COCO: photographs with captions and with the boxes of 80 categories (captions_*.json, instances_*.json)."""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from relvlm.data.arguments import positive
from relvlm.data.image_ids import image_id
from relvlm.data.shards.schema import Entity, Sample
from relvlm.data.shards.store import Encoded, check_free
from relvlm.data.sources.building import add_output_arguments, excluded, report, without, write_set
from relvlm.data.sources.faults import Faults, LeftOut, RecordFault, shown
from relvlm.data.sources.fields import Record, id_order, identifier, mapping, required, side, text
from relvlm.data.sources.raw import PhotoFault, clipped, load_json, read_xywh, sized_photo, tidy
from relvlm.data.sources.shrink import shrink
from relvlm.errors import UserError

EPILOG = """example:
  relvlm data build coco --captions annotations/captions_train2017.json \\
      --instances annotations/instances_train2017.json --images train2017 --out data/coco
  relvlm data relate data/coco data/coco_spatial     # spatial relations from the boxes
"""
BBOX = ("bbox",) * 4
T = TypeVar("T")


class Photo(NamedTuple):
    """What a file says of an image."""

    id: str
    file_name: str
    width: int
    height: int


def build(
    captions: Path,
    instances: Path,
    images: Path,
    out: Path,
    *,
    exclude: Collection[str | int] = (),
    shard_size: int = 1000,
    max_side: int | None = None,
    faults: Faults | None = None,
) -> tuple[dict[str, Any], list[str]]:
    """Write the shard set `out`; returns its manifest and the photos left out, each with its reason.

    An image is taken if either file describes it, and shrunk to `max_side` pixels if it is longer. Records that
    cannot be used go into `faults`. UserError for unreadable input, too many faults or a taken `out`.
    """
    check_free(out)
    faults = faults or Faults("coco")
    files = (captions.name, instances.name)
    samples = parse(load_json(captions, dict), load_json(instances, dict), faults, files)
    wanted, counts = without(samples, exclude, _named, faults)

    def make(item: tuple[str, Sample]) -> Encoded:
        name, sample = item
        return sample.image_id.zfill(12), *_fitted(images, name, sample, max_side)

    arguments = {"captions": captions.name, "instances": instances.name, "excluded": counts, "max_side": max_side}
    return write_set(out, wanted, make, _named, [images], faults, arguments=arguments, shard_size=shard_size)


def _named(item: tuple[str, Sample]) -> tuple[str, str]:
    return item[1].image_id, item[0]


def _fitted(images: Path, name: str, sample: Sample, max_side: int | None) -> tuple[bytes, Sample]:
    photo = sized_photo([images], name, sample.width, sample.height)
    if max_side is None:
        return photo, sample
    try:
        return shrink(photo, sample, max_side)
    except ValueError as error:
        raise PhotoFault(name, "corrupt image", str(error).removeprefix("corrupt image: ")) from error


def parse(
    captions: Record,
    instances: Record,
    faults: Faults | None = None,
    files: tuple[str, str] = ("captions", "instances"),
) -> list[tuple[str, Sample]]:
    """(file name, sample) of each image in either file, by image id; crowds and degenerate boxes are left out.

    What cannot be used goes into `faults`, under the names of the files. Raises UserError for a file that is none
    of COCO's.
    """
    faults = faults or Faults("coco")
    names = dict(zip(("captions", "instances"), files, strict=True))
    stated = [(names["captions"], _list(captions, "images")), (names["instances"], _list(instances, "images"))]
    photos = _photos(stated, faults)
    known = _Known(photos, {_stated_id(r) for _, records in stated for r in records}, _categories(instances, files[1]))
    texts = _by_image(captions, "caption", known.caption, names["captions"], faults)
    boxes = _by_image(instances, "box", known.box, names["instances"], faults)
    return [
        (p.file_name, Sample(p.id, p.width, p.height, "coco", tuple(texts[p.id]), tuple(boxes[p.id])))
        for p in sorted(photos.values(), key=lambda p: id_order(p.id))
    ]


def _list(file: Any, name: str) -> list[Any]:
    try:
        records = required(mapping(file, "top level"), name)
    except RecordFault as fault:
        missing = f"'{name}' is missing" if fault.reason == f"{name}: missing" else str(fault)
        raise UserError(f"COCO annotation: {missing} (is this a captions and an instances file?)") from fault
    if not isinstance(records, list):
        raise UserError(f"COCO annotation: {name}: {shown(records)} is no list")
    return records


def _photos(stated: list[tuple[str, list[Any]]], faults: Faults) -> dict[str, Photo]:
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


def _categories(instances: Record, name: str) -> dict[str, str]:
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
        self._boxes: set[tuple[str, str]] = set()

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
        if (photo.id, name) in self._boxes:
            raise RecordFault("id: another box of its image has it", name)
        self._boxes.add((photo.id, name))
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


def _by_image(
    file: Record, kind: str, read: Callable[[Any], tuple[Photo, str, T]], name: str, faults: Faults
) -> defaultdict[str, list[T]]:
    """What `read` makes of the annotations, by image and in the order of their ids."""
    numbered = enumerate(_list(file, "annotations"))
    found = list(faults.sound(kind, numbered, read, f"{name}: annotations"))
    grouped: defaultdict[str, list[T]] = defaultdict(list)
    for photo, _, value in sorted(found, key=lambda item: id_order(item[1])):
        grouped[photo.id].append(value)
    return grouped


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `relvlm data build coco`."""
    parser.description = "Build a shard set of COCO photographs with their captions and boxes."
    parser.epilog = EPILOG
    parser.add_argument("--captions", type=Path, required=True, metavar="FILE", help="captions_*.json")
    parser.add_argument("--instances", type=Path, required=True, metavar="FILE", help="instances_*.json")
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="folder of the photographs")
    parser.add_argument(
        "--max-side",
        type=positive,
        metavar="N",
        help="shrink photos whose longer side exceeds N pixels, boxes with them: small shards, quick decoding",
    )
    add_output_arguments(parser)


def main(args: argparse.Namespace) -> int:
    """Run the command; returns the exit status."""
    faults = Faults("coco", args.max_faults)
    manifest, skipped = build(
        args.captions,
        args.instances,
        args.images,
        args.out,
        exclude=excluded(args.exclude),
        shard_size=args.shard_size,
        max_side=args.max_side,
        faults=faults,
    )
    report(args.out, manifest, skipped, faults)
    return 0
