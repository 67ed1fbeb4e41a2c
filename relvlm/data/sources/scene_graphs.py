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
from relvlm.data.sources.raw import (
    clip_box,
    load_json,
    tidy,
)
from relvlm.errors import UserError

Node = dict[str, Any]
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
    relationships: list[dict[str, Any]]
    attributes: list[Node]
    objects: list[Node]
    size: Size | None

    def nodes(self) -> Iterator[Node]:
        """Every mention of an object, in the order of the files."""
        for relationship in self.relationships:
            yield relationship["subject"]
            yield relationship["object"]
        yield from self.objects
        yield from self.attributes


def read_graphs(files: Files, exclude: Collection[str] = ()) -> list[ImageGraph]:
    """The raw annotation by image, in the file's order; raises UserError naming the file at fault."""
    attributes = _by_image(files.attributes, "attributes")
    objects = _by_image(files.objects, "objects")
    sizes = _sizes(files.image_data)
    return [
        ImageGraph(i, relationships, attributes.get(i, []), objects.get(i, []), sizes.get(i))
        for i, relationships in _by_image(files.relationships, "relationships").items()
        if i not in exclude
    ]


def _by_image(file: Path | None, field: str) -> dict[str, list[dict[str, Any]]]:
    if file is None:
        return {}
    try:
        return {str(record["image_id"]): record[field] for record in load_json(file, list)}
    except (KeyError, TypeError) as error:
        raise UserError(f"{file}: {error}: not a list of records with image_id and {field}") from error


def _sizes(file: Path | None) -> dict[str, Size]:
    if file is None:
        return {}
    try:
        return {str(r["image_id"]): (r["width"], r["height"]) for r in load_json(file, list)}
    except (KeyError, TypeError) as error:
        raise UserError(f"{file}: {error}: not a list of records with image_id, width and height") from error


def to_sample(graph: ImageGraph, size: Size | None = None) -> Sample | None:
    """The image's sample; `size` (of the photo) or the graph's own, else the extent of the boxes.

    Objects without a label or with less than a pixel inside the image are dropped with their relations, as are
    repeated relations and those of an object with itself. None if no object is left.
    """
    try:
        return _to_sample(graph, size)
    except (KeyError, TypeError, IndexError) as error:
        raise UserError(f"Visual Genome image {graph.image_id}: field {error} is missing or of a wrong kind") from error


def _to_sample(graph: ImageGraph, size: Size | None) -> Sample | None:
    canonical = Aliases(graph.nodes())
    chosen = _one_node_each(graph.nodes(), canonical)
    width, height = size or graph.size or _extent(chosen.values())
    attributes = _attributes(graph.nodes(), canonical, chosen)
    entities = tuple(
        Entity(str(i), label(node), box, tuple(attributes.get(i, ())))
        for i, node in chosen.items()
        if label(node) and (box := clip_box([node[k] for k in "xywh"], width, height))
    )
    if not entities:
        return None
    relations = _relations(graph.relationships, canonical, {e.id for e in entities})
    return Sample(graph.image_id, width, height, "visual_genome", (), entities, relations)


class Aliases:
    """Object id -> the id it was merged into."""

    def __init__(self, nodes: Iterable[Node]) -> None:
        self._into: dict[int, int] = {}
        for node in nodes:
            for merged in node.get("merged_object_ids", ()):
                if self(node["object_id"]) != merged:  # else two ids that name each other: a circle
                    self._into.setdefault(merged, node["object_id"])

    def __call__(self, object_id: int) -> int:
        while object_id in self._into:
            object_id = self._into[object_id]
        return object_id


def label(node: Node) -> str:
    """The object's (first) name."""
    names = node.get("names") or [node.get("name", "")]
    return tidy(names[0])


def _one_node_each(nodes: Iterable[Node], canonical: Aliases) -> dict[int, Node]:
    """By merged id: the mention under that very id, else the first."""
    chosen: dict[int, Node] = {}
    for node in nodes:
        i = canonical(node["object_id"])
        if i not in chosen or (node["object_id"] == i != chosen[i]["object_id"]):
            chosen[i] = node
    return chosen


def _attributes(nodes: Iterable[Node], canonical: Aliases, chosen: dict[int, Node]) -> dict[int, list[str]]:
    """By merged id; a mention under another name (a "street" merged into a "sidewalk") has no say."""
    found: dict[int, dict[str, None]] = {}
    for node in nodes:
        i = canonical(node["object_id"])
        if label(node) == label(chosen[i]):
            words = (tidy(a) for a in node.get("attributes") or ())
            found.setdefault(i, {}).update({w: None for w in words if w and w != label(node)})
    return {i: list(words) for i, words in found.items()}


def _relations(relationships: list[dict[str, Any]], canonical: Aliases, known: Collection[str]) -> tuple[Relation, ...]:
    found: dict[Relation, None] = {}
    for r in relationships:
        subject, target = (str(canonical(r[end]["object_id"])) for end in ("subject", "object"))
        predicate = tidy(r["predicate"])
        if predicate and subject != target and subject in known and target in known:
            found[Relation(subject, predicate, target)] = None
    return tuple(found)


def _extent(nodes: Collection[Node]) -> Size:
    return (
        max((ceil(n["x"] + n["w"]) for n in nodes), default=0),
        max((ceil(n["y"] + n["h"]) for n in nodes), default=0),
    )


def parse(graphs: Iterable[ImageGraph]) -> Iterator[Sample]:
    """Samples without photographs; images without a usable object are left out."""
    return (sample for graph in graphs if (sample := to_sample(graph)))
