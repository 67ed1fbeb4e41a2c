"""Visual Genome's objects, attributes and free-form relations, in the official list form of release 1.2/1.4.

The same object may come under several ids (`merged_object_ids`) and under `name` or `names`; predicates are
free text in mixed case. The file with the relationships decides which images are taken.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

from relvlm.data.shards.schema import Entity, Relation, Sample
from relvlm.data.sources.faults import Faults, LeftOut, RecordFault, shown
from relvlm.data.sources.fields import (
    Record,
    as_identifier,
    as_text,
    identifier,
    items,
    mapping,
    optional_list,
    relation_of,
    required,
    side,
    text,
)
from relvlm.data.sources.json_stream import list_items
from relvlm.data.sources.meter import Meter
from relvlm.data.sources.raw import clipped, read_xywh, tidy
from relvlm.data.sources.spool import Spool

Size = tuple[int, int]


@dataclass(frozen=True)
class Files:
    """The annotation files; all but the first may be absent."""

    relationships: Path
    attributes: Path | None = None
    objects: Path | None = None
    image_data: Path | None = None


@dataclass(frozen=True)
class ImageGraph:
    """One image's raw annotation; `size` is None where image_data.json does not tell."""

    image_id: str
    relationships: list[Any]
    attributes: list[Any]
    objects: list[Any]
    size: Size | None


@dataclass(frozen=True)
class Mention:
    """An object as one of the files tells it; `xywh` in pixels, `merged` are ids that mean the same object."""

    id: str
    label: str
    xywh: tuple[float, float, float, float]
    attributes: tuple[str, ...]
    merged: tuple[str, ...]


def read_graphs(files: Files, faults: Faults, meter: Meter | None = None) -> Iterator[ImageGraph]:
    """The raw annotation by image, in the file's order; raises UserError naming the file at fault.

    An image's records are put together where a file has several, on disk: the files are larger than memory. Records
    that cannot be used go into `faults`.
    """
    spool = Spool()
    for part in ("attributes", "objects", "relationships"):
        _by_image(getattr(files, part), part, faults, spool, meter)
    _sizes(files.image_data, faults, spool, meter)

    def listed(part: str, image: str) -> list[Any]:
        return [record for records in spool.get(part, image) for record in records]

    for image in spool.images("relationships"):
        attributes, objects, relationships = (listed(p, image) for p in ("attributes", "objects", "relationships"))
        sizes = spool.get("size", image)
        yield ImageGraph(image, relationships, attributes, objects, sizes[0] if sizes else None)


def _by_image(file: Path | None, part: str, faults: Faults, spool: Spool, meter: Meter | None) -> None:
    if file is None:
        return

    def read(record: Any) -> tuple[str, list[Any]]:
        listed = required(mapping(record), part)
        if type(listed) is not list:
            raise RecordFault(f"{part}: no list", shown(listed))
        return identifier(record, "image_id"), listed

    for image, listed in faults.sound("image", enumerate(list_items(file, meter)), read, file.name):
        spool.put(part, image, listed)


def _sizes(file: Path | None, faults: Faults, spool: Spool, meter: Meter | None) -> None:
    if file is None:
        return

    def read(record: Any) -> tuple[str, Size]:
        image, size = identifier(mapping(record), "image_id"), (side(record, "width"), side(record, "height"))
        before = spool.get("size", image)
        if before and before[0] != size:
            raise RecordFault("width, height: other than before", f"image {image}: {before[0]}, {size}")
        return image, size

    for image, size in faults.sound("size", enumerate(list_items(file, meter)), read, file.name):
        spool.put("size", image, size)


def to_sample(graph: ImageGraph, faults: Faults, size: Size | None = None) -> Sample | None:
    """The image's sample; `size` (of the photo) or the graph's own, else the extent of the boxes.

    Objects without a label or with less than a pixel inside the image are dropped with their relations, as are
    repeated relations and those of an object with itself. What cannot be used goes into `faults`. None if no object
    is left.
    """
    mentions = list(_mentions(graph, faults))
    canonical = Aliases(mentions)
    chosen = _one_mention_each(mentions, canonical)
    width, height = size or graph.size or _extent(chosen.values())
    attributes = _attributes(mentions, canonical, chosen)
    entities = _entities(chosen, attributes, (width, height), f"image {graph.image_id}: object", faults)
    if not entities:
        return None
    relations = _relations(graph, canonical, {e.id for e in entities}, faults)
    return Sample(graph.image_id, width, height, "visual_genome", (), entities, relations)


def _mentions(graph: ImageGraph, faults: Faults) -> Iterator[Mention]:
    """Every mention of an object, in the order of the files."""
    place = f"image {graph.image_id}"

    def read(node: Any) -> Mention:
        return _mention(node, place, faults)

    for number, record in enumerate(graph.relationships):
        ends = [(end, record[end]) for end in ("subject", "object") if type(record) is dict and end in record]
        yield from faults.sound("object", ends, read, f"{place}: relationships[{number}]")
    yield from faults.sound("object", enumerate(graph.objects), read, f"{place}: objects")
    yield from faults.sound("object", enumerate(graph.attributes), read, f"{place}: attributes")


def _mention(node: Any, place: str, faults: Faults) -> Mention:
    node = mapping(node, "object")
    name, label = identifier(node, "object_id"), _label(node)
    xywh = read_xywh([required(node, k) for k in "xywh"], "xywh")
    merged = tuple([as_identifier(i, "merged_object_ids") for i in optional_list(node, "merged_object_ids")])
    where = f"{place}: object {name}.attributes"
    words = faults.sound("attribute", items(faults, "attribute", node, "attributes", where), _word, where)
    return Mention(name, label, xywh, tuple([word for word in words if word and word != label]), merged)


def _word(value: Any) -> str:
    return tidy(as_text(value, "attribute"))


def _label(node: Record) -> str:
    """The object's (first) name."""
    names = optional_list(node, "names")
    return tidy(as_text(names[0], "names") if names else text(node, "name"))


class Aliases:
    """Object id -> the id it was merged into."""

    def __init__(self, mentions: Iterable[Mention]) -> None:
        self._into: dict[str, str] = {}
        for mention in mentions:
            for merged in mention.merged:
                if self(mention.id) != merged:  # else two ids that name each other: a circle
                    self._into.setdefault(merged, mention.id)

    def __call__(self, object_id: str) -> str:
        while object_id in self._into:
            object_id = self._into[object_id]
        return object_id


def _one_mention_each(mentions: Iterable[Mention], canonical: Aliases) -> dict[str, Mention]:
    """By merged id: the mention under that very id, else the first."""
    chosen: dict[str, Mention] = {}
    for mention in mentions:
        i = canonical(mention.id)
        if i not in chosen or (mention.id == i != chosen[i].id):
            chosen[i] = mention
    return chosen


def _attributes(
    mentions: Iterable[Mention], canonical: Aliases, chosen: dict[str, Mention]
) -> dict[str, dict[str, None]]:
    """By merged id; a mention under another name (a "street" merged into a "sidewalk") has no say."""
    found: dict[str, dict[str, None]] = {}
    for mention in mentions:
        i = canonical(mention.id)
        if mention.label == chosen[i].label:
            found.setdefault(i, {}).update(dict.fromkeys(mention.attributes))
    return found


def _entities(
    chosen: dict[str, Mention], attributes: dict[str, dict[str, None]], size: Size, place: str, faults: Faults
) -> tuple[Entity, ...]:
    def read(named: tuple[str, Mention]) -> Entity:
        name, mention = named
        if not mention.label:
            raise LeftOut("no label")
        return Entity(name, mention.label, clipped(mention.xywh, *size), tuple(attributes.get(name, ())))

    return tuple(faults.sound("entity", ((i, (i, mention)) for i, mention in chosen.items()), read, place))


def _relations(graph: ImageGraph, canonical: Aliases, known: Collection[str], faults: Faults) -> tuple[Relation, ...]:
    def read(record: Any) -> Relation:
        record = mapping(record, "relationship")
        ends = (mapping(required(record, end), end) for end in ("subject", "object"))
        subject, target = (canonical(identifier(end, "object_id")) for end in ends)
        predicate = tidy(text(record, "predicate"))
        return relation_of(subject, predicate, target, known)

    place = f"image {graph.image_id}: relationships"
    return tuple(dict.fromkeys(faults.sound("relation", enumerate(graph.relationships), read, place)))


def _extent(mentions: Collection[Mention]) -> Size:
    boxes = [m.xywh for m in mentions]
    return (
        max((ceil(x + width) for x, _, width, _ in boxes), default=0),
        max((ceil(y + height) for _, y, _, height in boxes), default=0),
    )


def parse(graphs: Iterable[ImageGraph], faults: Faults) -> Iterator[Sample]:
    """Samples without photographs; images without a usable object are left out."""
    return (sample for graph in graphs if (sample := to_sample(graph, faults)))
