"""GQA scene graphs: {image id: {width, height, objects: {id: {name, x, y, w, h, attributes, relations: [...]}}}}."""

from __future__ import annotations

import argparse
from collections.abc import Collection
from pathlib import Path
from typing import Any

from relvlm.data.image_ids import unpadded
from relvlm.data.json_keys import RepeatedKeys
from relvlm.data.shards.schema import Entity, Relation, Sample
from relvlm.data.shards.store import Encoded, check_free
from relvlm.data.sources.building import add_output_arguments, excluded, report, without, write_set
from relvlm.data.sources.faults import Faults, LeftOut, RecordFault
from relvlm.data.sources.fields import (
    Record,
    as_identifier,
    as_text,
    identifier,
    items,
    mapping,
    relation_of,
    required,
    side,
    text,
)
from relvlm.data.sources.raw import clipped, load_json, read_xywh, sized_photo, tidy

EPILOG = """example:
  relvlm data build gqa --scene-graphs train_sceneGraphs.json --images images --out data/gqa
"""


def to_sample(image_id: str, graph: Any, faults: Faults) -> Sample:
    """One scene graph as a sample; objects with less than a pixel inside the image go with their relations.

    Objects, attributes and relations that cannot be used go into `faults`; RecordFault where the graph is none.
    """
    graph = mapping(graph, "graph")
    size = side(graph, "width"), side(graph, "height")
    objects = mapping(required(graph, "objects"), "objects")
    place = f"image {image_id}: objects"
    entities = _entities(objects, size, place, faults)
    relations = _relations(objects, entities, place, faults)
    return Sample(image_id, *size, "gqa", (), tuple(entities.values()), relations)


def _entities(objects: Record, size: tuple[int, int], place: str, faults: Faults) -> dict[str, Entity]:
    found: dict[str, Entity] = {}

    def read(named: tuple[str, Any]) -> Entity:
        name = as_identifier(named[0], "id")
        node = mapping(named[1], "object")
        label = tidy(text(node, "name"))
        box = clipped(read_xywh([required(node, k) for k in "xywh"], "xywh"), *size)
        if not label:
            raise LeftOut("no label")
        if name in found:
            raise RecordFault("id: another object of its image has it", name)
        return Entity(name, label, box, _attributes(node, f"{place}[{name}].attributes", faults))

    for entity in faults.sound("object", ((i, (i, node)) for i, node in objects.items()), read, place):
        found[entity.id] = entity
    return found


def _attributes(node: Record, place: str, faults: Faults) -> tuple[str, ...]:
    def read(value: Any) -> str:
        return tidy(as_text(value, "attribute"))

    words = faults.sound("attribute", items(faults, "attribute", node, "attributes", place), read, place)
    return tuple(dict.fromkeys(word for word in words if word))


def _relations(objects: Record, entities: Collection[str], place: str, faults: Faults) -> tuple[Relation, ...]:
    stated = {unpadded(i) for i in objects}
    found: dict[Relation, None] = {}
    for i, node in objects.items():
        if type(node) is not dict:
            continue  # counted as an object

        def read(record: Any, subject: str = unpadded(i)) -> Relation:
            return _relation(mapping(record, "relation"), subject, entities, stated)

        where = f"{place}[{i}].relations"
        relations = faults.sound("relation", items(faults, "relation", node, "relations", where), read, where)
        found.update(dict.fromkeys(relations))
    return tuple(found)


def _relation(record: Record, subject: str, entities: Collection[str], stated: Collection[str]) -> Relation:
    predicate, target = tidy(text(record, "name")), identifier(record, "object")
    if target not in entities and target not in stated:
        raise RecordFault("object: names no object", target)
    return relation_of(subject, predicate, target, entities)


def build(
    scene_graphs: Path,
    images: Path,
    out: Path,
    *,
    exclude: Collection[str | int] = (),
    shard_size: int = 1000,
    faults: Faults | None = None,
) -> tuple[dict[str, Any], list[str]]:
    """Write the shard set `out`; returns its manifest and the photos left out, each with its reason.

    Records that cannot be used go into `faults`. UserError for unreadable input, too many faults or a taken `out`.
    """
    check_free(out)
    faults = faults or Faults("gqa")
    graphs = _graphs(load_json(scene_graphs, dict), scene_graphs.name, faults)
    wanted, counts = without(graphs.items(), exclude, _named, faults)

    def make(item: tuple[str, Any]) -> Encoded:
        sample = to_sample(*item, faults)
        photo = sized_photo([images], f"{item[0]}.jpg", sample.width, sample.height)
        return item[0].zfill(8), photo, sample

    arguments = {"scene_graphs": scene_graphs.name, "excluded": counts}
    return write_set(out, wanted, make, _named, [images], faults, arguments=arguments, shard_size=shard_size)


def _named(item: tuple[str, Any]) -> tuple[str, str]:
    return item[0], f"{item[0]}.jpg"


def _graphs(content: Record, name: str, faults: Faults) -> dict[str, Any]:
    """Graphs by image id; an id that stands twice is left out, since json keeps its last graph alone."""
    repeated = content.repeated if isinstance(content, RepeatedKeys) else ()
    found: dict[str, Any] = {}

    def read(key: str) -> str:
        image = as_identifier(key, "image id")
        if key in repeated or image in found:
            raise RecordFault("image id: stands twice", key)
        return image

    for key, graph in content.items():
        found.update({image: graph for image in faults.sound("image", [(key, key)], read, name)})
    return found


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `relvlm data build gqa`."""
    parser.description = "Build a shard set of GQA: photos with their scene graphs."
    parser.epilog = EPILOG
    parser.add_argument("--scene-graphs", type=Path, required=True, metavar="FILE", help="train_sceneGraphs.json")
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="folder of ID.jpg")
    add_output_arguments(parser)


def main(args: argparse.Namespace) -> int:
    """Run the command; returns the exit status."""
    faults = Faults("gqa", args.max_faults)
    manifest, skipped = build(
        args.scene_graphs,
        args.images,
        args.out,
        exclude=excluded(args.exclude),
        shard_size=args.shard_size,
        faults=faults,
    )
    report(args.out, manifest, skipped, faults)
    return 0
