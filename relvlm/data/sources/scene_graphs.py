"""Visual Genome's objects, attributes and free-form relations, in the official list form of release 1.2/1.4.

The same object may come under several ids (`merged_object_ids`) and under `name` or `names`; predicates are
free text in mixed case. The file with the relationships decides which images are taken.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

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
from relvlm.data.sources.json_stream import list_texts, value_of
from relvlm.data.sources.meter import Meter
from relvlm.data.sources.raw import clipped, read_xywh, tidy
from relvlm.data.sources.spool import Spool, filled, values

Size = tuple[int, int]
PARTS = ("attributes", "objects", "relationships", "image_data")  # also the names of their files' lists of records
T = TypeVar("T")


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


class Stored(NamedTuple):
    """What the files tell of an image as the spool has it: by part, (place in the file, text) of each record."""

    image_id: str
    parts: dict[str, list[bytes]]


def stored_graphs(files: Files, faults: Faults, meter: Meter, file: Path | None = None) -> Iterator[Stored]:
    """Every image that the relationships name, in their order; raises UserError naming the file at fault.

    An image's records are put together on disk, in the spool of `file`: the files are larger than memory.
    """

    def fill(spool: Spool, counted: Faults) -> None:
        for part in PARTS:
            _by_image(getattr(files, part), part, counted, spool, meter)

    spool = filled(file, fill, faults)
    meter.total, meter.done = spool.count("relationships"), 0
    for image in spool.images("relationships"):
        meter.done += 1
        yield Stored(image, {part: spool.blobs(part, image) for part in PARTS})


def read_graphs(files: Files, faults: Faults) -> Iterator[ImageGraph]:
    """The raw annotation by image; records that cannot be used go into `faults`."""
    for stored in stored_graphs(files, faults, Meter()):
        yield graph_of(stored, files, faults)


def _by_image(file: Path | None, part: str, faults: Faults, spool: Spool, meter: Meter) -> None:
    """Put (place in the file, text) of each record."""
    if file is None:
        return

    def read(numbered: tuple[int, tuple[Any, str]]) -> tuple[str, tuple[int, str]]:
        number, (record, words) = numbered
        if part != "image_data":
            _list_of(mapping(record), part)
        return identifier(mapping(record), "image_id"), (number, words)

    records = ((number, (number, found)) for number, found in enumerate(list_texts(file, meter)))
    for image, value in faults.sound(_kind(part), records, read, file.name):
        spool.put(part, image, value)


def _list_of(record: Record, part: str) -> list[Any]:
    listed = required(record, part)
    if type(listed) is not list:
        raise RecordFault(f"{part}: no list", shown(listed))
    return listed


def _kind(part: str) -> str:
    return "size" if part == "image_data" else "image"


def graph_of(stored: Stored, files: Files, faults: Faults) -> ImageGraph:
    """The records of an image, read strictly; those that cannot be used go into `faults`."""

    def listed(part: str) -> list[Any]:
        lists = _counted_before(stored, part, lambda record: _list_of(mapping(record), part), files, faults)
        return [record for records in lists for record in records]

    relationships, attributes, objects = (listed(part) for part in ("relationships", "attributes", "objects"))
    return ImageGraph(stored.image_id, relationships, attributes, objects, _size(stored, files, faults))


def _size(stored: Stored, files: Files, faults: Faults) -> Size | None:
    """That of image_data.json, of several that differ the first."""
    found: list[Size] = []

    def read(record: Any) -> None:
        size = side(mapping(record), "width"), side(record, "height")
        if found and found[0] != size:
            raise RecordFault("width, height: other than before", f"image {stored.image_id}: {found[0]}, {size}")
        found.append(size)

    _counted_before(stored, "image_data", read, files, faults)
    return found[0] if found else None


def _counted_before(stored: Stored, part: str, read: Callable[[Any], T], files: Files, faults: Faults) -> list[T]:
    """What `read` makes of records that were counted when the spool was filled."""
    found = []
    for number, words in values(stored.parts[part]):
        try:
            found.append(read(value_of(words)))
        except RecordFault as fault:
            faults.read[_kind(part)] += 0  # so that the table of faults has the kind
            faults.add(_kind(part), f"{getattr(files, part).name}[{number}]", fault)
    return found


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
