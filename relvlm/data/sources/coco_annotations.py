"""COCO's annotations (captions_*.json, instances_*.json), put together by image on disk, and what they say of one.

Whoever fills the spool looks at ids alone; the annotations themselves are read where their image's shard is made.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from relvlm.data.image_ids import image_id
from relvlm.data.shards.schema import Entity, Sample
from relvlm.data.sources.faults import Faults, LeftOut, RecordFault, shown
from relvlm.data.sources.fields import Record, id_order, identifier, mapping, required, side, text
from relvlm.data.sources.json_stream import nested_texts, value_of
from relvlm.data.sources.meter import Meter
from relvlm.data.sources.raw import clipped, read_xywh, tidy
from relvlm.data.sources.spool import Spool, filled, values
from relvlm.errors import UserError

BBOX = ("bbox",) * 4
KINDS = ("caption", "box")  # of annotations: of the first file, of the second
NOTHING: Record = {"images": [], "annotations": [], "categories": []}  # of a file that is not given
Stated = tuple[int, int, str]  # file, place in its list, text of the record
T = TypeVar("T")


class Photo(NamedTuple):
    """What a file says of an image."""

    id: str
    file_name: str
    width: int
    height: int


class Described(NamedTuple):
    """An image and, as the spool has them, its annotations; `labels` are those of all categories by id."""

    photo: Photo
    captions: list[bytes]
    boxes: list[bytes]
    labels: dict[str, str]


def parse(
    captions: Record | Path,
    instances: Record | Path,
    faults: Faults | None = None,
    files: tuple[str, str] = ("captions", "instances"),
) -> Iterator[tuple[str, Sample]]:
    """(file name, sample) of each image in either file, by image id; crowds and degenerate boxes are left out.

    What cannot be used goes into `faults`, under the names of the files. UserError for a file that is none of COCO's.
    """
    faults = faults or Faults("coco")
    for found in described(captions, instances, faults, files, Meter()):
        yield found.photo.file_name, to_sample(found, files, faults)


def described(
    captions: Record | Path,
    instances: Record | Path,
    faults: Faults,
    files: tuple[str, str],
    meter: Meter,
    file: Path | None = None,
) -> Iterator[Described]:
    """Each image that is described, by id; `file` is the spool's.

    What is left out with its image, or names none, is counted here, the rest where it is read.
    """

    def fill(spool: Spool, _: Faults) -> None:
        _fill(spool, 0, captions, ("images", "annotations"), meter)
        _fill(spool, 1, instances, ("images", "annotations", "categories"), meter)

    spool = filled(file, fill, faults)
    labels = _labels(spool.get("categories", ""), files[1])
    meter.total, meter.done = spool.count("images"), 0
    for image in spool.images("images", by_id=True):
        meter.done += 1
        photo = _photo_of(image, spool.get("images", image), files, faults)
        if photo is None:
            _count(spool, image, LeftOut("its image is left out"), files, faults)
        else:
            yield Described(photo, spool.blobs("caption", image), spool.blobs("box", image), labels)
    for kind in KINDS:
        for image in spool.images(kind, without="images"):
            _count(spool, image, RecordFault("image_id: names no image", image), files, faults)


def _fill(spool: Spool, file: int, content: Record | Path, lists: Sequence[str], meter: Meter) -> None:
    """Put (file, place in its list, text) of each record by image, under "" where it names none."""
    numbers = Counter[str]()
    for name, record, words in _records(content, lists, meter):
        part, key = (KINDS[file], "image_id") if name == "annotations" else (name, "id")
        try:
            image = "" if name == "categories" else identifier(mapping(record), key)
        except RecordFault:
            image = ""
        spool.put(part, image, (file, numbers[name], words))
        numbers[name] += 1


def _records(content: Record | Path, lists: Sequence[str], meter: Meter) -> Iterator[tuple[str, Any, str]]:
    if isinstance(content, Path):
        yield from nested_texts(content, lists, meter)
        return
    for name in lists:
        try:
            records = required(mapping(content, "top level"), name)
        except RecordFault as fault:
            missing = f"'{name}' is missing" if fault.reason == f"{name}: missing" else str(fault)
            raise UserError(f"COCO annotation: {missing} (is this a captions and an instances file?)") from fault
        if not isinstance(records, list):
            raise UserError(f"COCO annotation: {name}: {shown(records)} is no list")
        yield from ((name, record, json.dumps(record)) for record in records)


def _photo_of(image: str, stated: list[Stated], files: tuple[str, str], faults: Faults) -> Photo | None:
    """What the files say of an image; None where that is nothing, or not the same."""
    photos: list[Photo] = []
    for file, number, words in stated:
        photos += faults.sound("image", [(number, value_of(words))], _photo, f"{files[file]}: images")
    for other in photos[1:]:
        if not _agree(photos[0], other):
            detail = f"{photos[0].file_name} {photos[0][2:]} and {other.file_name} {other[2:]}"
            faults.add("image", f"image {image}", RecordFault("described twice, not alike", detail))
            return None
    return photos[0] if photos else None


def _count(spool: Spool, image: str, fault: RecordFault, files: tuple[str, str], faults: Faults) -> None:
    """Count the annotations of an image as `fault`, of one that names no image as what its id is."""

    def refuse(record: Any) -> None:
        identifier(mapping(record), "image_id")
        raise fault

    for kind in KINDS:
        for file, number, words in spool.get(kind, image):
            list(faults.sound(kind, [(number, value_of(words))], refuse, f"{files[file]}: annotations"))


def _photo(record: Any) -> Photo:
    record = mapping(record)
    return Photo(identifier(record, "id"), text(record, "file_name"), side(record, "width"), side(record, "height"))


def _agree(a: Photo, b: Photo) -> bool:
    """Size and photo are the same, however its name is spelt (000000000042.jpg, COCO_val2014_000000000042.jpg)."""
    return a[2:] == b[2:] and image_id(a.file_name).id == image_id(b.file_name).id


def _labels(stated: list[Stated], name: str) -> dict[str, str]:
    """The categories by id; raises UserError."""
    found: dict[str, str] = {}
    for _, number, words in stated:
        try:
            record = mapping(value_of(words))
            category, label = identifier(record, "id"), tidy(text(record, "name"))
        except RecordFault as fault:
            raise UserError(f"{name}: categories[{number}]: {fault} (every box of it would be wrong)") from fault
        if not label or found.setdefault(category, label) != label:
            raise UserError(f"{name}: categories[{number}]: id {category} has no name, or another one before")
    return found


def to_sample(found: Described, files: tuple[str, str], faults: Faults) -> Sample:
    """The image with its captions and boxes, both in the order of their ids; what cannot be used goes into `faults`."""

    def box(record: Record) -> Entity:
        return _box(record, found.photo, found.labels)

    texts = _of_image(found.captions, "caption", _caption, files[0], faults)
    boxes = _of_image(found.boxes, "box", box, files[1], faults)
    entities = _unrepeated(boxes, f"{files[1]}: annotations", faults)
    photo = found.photo
    return Sample(photo.id, photo.width, photo.height, "coco", tuple(text for *_, text in texts), entities)


def _of_image(
    blobs: list[bytes], kind: str, read: Callable[[Record], T], file: str, faults: Faults
) -> list[tuple[str, int, T]]:
    """(annotation id, place in the file, what `read` makes of it), in the order of the ids."""

    def numbered(stated: Stated) -> tuple[str, int, T]:
        record = mapping(value_of(stated[2]))
        return identifier(record, "id"), stated[1], read(record)

    records = ((stated[1], stated) for stated in values(blobs))
    found = faults.sound(kind, records, numbered, f"{file}: annotations")
    return sorted(found, key=lambda each: (id_order(each[0]), each[1]))


def _caption(record: Record) -> str:
    caption = " ".join(text(record, "caption").split())
    if not caption:
        raise LeftOut("caption: empty")
    return caption


def _box(record: Record, photo: Photo, labels: dict[str, str]) -> Entity:
    if _crowd(record):
        raise LeftOut("a crowd")
    name, category, corners = identifier(record, "id"), identifier(record, "category_id"), _bbox(record)
    if category not in labels:
        raise RecordFault("category_id: names no category", category)
    return Entity(name, labels[category], clipped(corners, photo.width, photo.height))


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


def _unrepeated(boxes: list[tuple[str, int, Entity]], place: str, faults: Faults) -> tuple[Entity, ...]:
    """The first box of each id; the others are faults."""
    found: dict[str, Entity] = {}
    for name, number, entity in boxes:
        if name in found:
            faults.add("box", f"{place}[{number}]", RecordFault("id: another box of its image has it", name))
        found.setdefault(name, entity)
    return tuple(found.values())
