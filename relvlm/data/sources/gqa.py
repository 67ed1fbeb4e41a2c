"""GQA scene graphs: {image id: {width, height, objects: {id: {name, x, y, w, h, attributes, relations: [...]}}}}."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from relvlm.data.image_ids import unpadded
from relvlm.data.shards.schema import Entity, Relation, Sample
from relvlm.data.sources.building import add_output_arguments, build_and_report
from relvlm.data.sources.driver import Driver, Options
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
from relvlm.data.sources.item import FilePhoto, Item, Size
from relvlm.data.sources.json_stream import object_texts, value_of
from relvlm.data.sources.meter import Meter
from relvlm.data.sources.raw import check_size, clipped, read_xywh, tidy
from relvlm.data.sources.spool import SeenNames
from relvlm.errors import UserError

MIRRORED = {"to the left of": "to the right of", "to the right of": "to the left of"}
EPILOG = """MRC's classes are the predicates of relations.txt in their order. By default these are those of the photos
that were found; with --relations FILE they are that list, whatever is found, and others are left out and counted.
`relvlm data predicates` makes that list from the scene graphs alone and counts beside the paper's 310.

example:
  relvlm data build gqa --scene-graphs train_sceneGraphs.json --images images --out data/gqa
"""


@dataclass(frozen=True)
class Policy:
    """Which relations are kept: those of a fixed list (all, without one), each of a mirrored pair or one."""

    predicates: frozenset[str] = frozenset()
    mirrored: bool = True

    def check(self, relation: Relation, found: Collection[Relation]) -> None:
        """Raise LeftOut where `relation` goes; `found` are the image's before it."""
        if self.predicates and relation.predicate not in self.predicates:
            raise LeftOut("predicate: not in --relations")
        mirrored = MIRRORED.get(relation.predicate)
        if not self.mirrored and mirrored and Relation(relation.object, mirrored, relation.subject) in found:
            raise LeftOut("says what another says the other way round (--mirrored drop)")


def to_sample(image_id: str, graph: Any, faults: Faults, policy: Policy = Policy()) -> Sample:
    """One scene graph as a sample; objects with less than a pixel inside the image go with their relations.

    Objects, attributes and relations that cannot be used go into `faults`; RecordFault where the graph is none.
    """
    graph = mapping(graph, "graph")
    size = side(graph, "width"), side(graph, "height")
    objects = mapping(required(graph, "objects"), "objects")
    place = f"image {image_id}: objects"
    entities = _entities(objects, size, place, faults)
    relations = _relations(objects, entities, place, faults, policy)
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


def _relations(
    objects: Record, entities: Collection[str], place: str, faults: Faults, policy: Policy
) -> tuple[Relation, ...]:
    stated = {unpadded(i) for i in objects}
    found: dict[Relation, None] = {}
    for i, node in objects.items():
        if type(node) is not dict:
            continue  # counted as an object

        def read(record: Any, subject: str = unpadded(i)) -> Relation:
            relation = _relation(mapping(record, "relation"), subject, entities, stated)
            policy.check(relation, found)
            return relation

        where = f"{place}[{i}].relations"
        relations = faults.sound("relation", items(faults, "relation", node, "relations", where), read, where)
        for relation in relations:
            found[relation] = None
    return tuple(found)


def _relation(record: Record, subject: str, entities: Collection[str], stated: Collection[str]) -> Relation:
    predicate, target = tidy(text(record, "name")), identifier(record, "object")
    if target not in entities and target not in stated:
        raise RecordFault("object: names no object", target)
    return relation_of(subject, predicate, target, entities)


@dataclass(frozen=True)
class Gqa:
    """The photos of a scene graph file."""

    scene_graphs: Path
    images: Path
    policy: Policy = Policy()
    name: str = "gqa"
    hint: str = "check --images"

    def files(self) -> list[Path]:
        return [self.scene_graphs]

    def arguments(self) -> dict[str, Any]:
        predicates = {"predicates": len(self.policy.predicates)} if self.policy.predicates else {}
        mirrored = {} if self.policy.mirrored else {"mirrored": "drop"}
        return {"scene_graphs": self.scene_graphs.name, **predicates, **mirrored}

    def places(self) -> str:
        return str(self.images)

    def items(self, faults: Faults, meter: Meter) -> Iterator[Item]:
        """Graphs by image; of an id that stands twice the first, the others are faults."""
        found = SeenNames()

        def read(key: str) -> str:
            image = as_identifier(key, "image id")
            if not found.add(image):
                raise RecordFault("image id: stands twice", key)
            return image

        for key, graph in object_texts(self.scene_graphs, meter):
            for image in faults.sound("image", [(key, key)], read, self.scene_graphs.name):
                yield Item(image, image.zfill(8), FilePhoto(f"{image}.jpg", (self.images,)), graph)

    def sample(self, item: Item, size: Size, faults: Faults) -> Sample:
        sample = to_sample(item.image_id, value_of(item.record), faults, self.policy)
        check_size(item.photo.name, size, (sample.width, sample.height))
        return sample


def build(
    scene_graphs: Path,
    images: Path,
    out: Path,
    *,
    faults: Faults | None = None,
    options: Options = Options(),  # noqa: B008
) -> tuple[dict[str, Any], int]:
    """Write the shard set `out`; returns its manifest and how many photos were left out (`skipped.txt`).

    Records that cannot be used go into `faults`. UserError for unreadable input, too many faults or a taken `out`.
    """
    return Driver(Gqa(scene_graphs, images), faults or Faults("gqa"), options).build(out)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `relvlm data build gqa`."""
    parser.description = "Build a shard set of GQA: photos with their scene graphs."
    parser.epilog = EPILOG
    parser.add_argument("--scene-graphs", type=Path, required=True, metavar="FILE", help="train_sceneGraphs.json")
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="folder of ID.jpg")
    parser.add_argument("--relations", type=Path, metavar="FILE", help="the predicates to keep, one a line, in order")
    parser.add_argument(
        "--mirrored",
        choices=("keep", "drop"),
        default="keep",
        help="of `a left of b` and `b right of a` keep both, or the first (keep)",
    )
    add_output_arguments(parser)


def main(args: argparse.Namespace) -> int:
    """Run the command; returns the exit status."""
    predicates = () if args.relations is None else read_predicates(args.relations)
    source = Gqa(args.scene_graphs, args.images, Policy(frozenset(predicates), args.mirrored == "keep"))
    return build_and_report(source, args, predicates)


def read_predicates(file: Path) -> tuple[str, ...]:
    """The lines of a list of predicates; raises UserError."""
    try:
        found = tuple(line for line in file.read_text(encoding="utf-8-sig").splitlines() if line)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: cannot be read: {error} (check --relations)") from error
    odd = [line for line in found if tidy(line) != line] or [line for line in found if found.count(line) > 1]
    if odd or not found:
        what = f"{odd[0]!r} is there twice, or not in lower case with single spaces" if odd else "empty"
        raise UserError(f"{file}: {what} (check --relations)")
    return found
