"""GQA scene graphs: {image id: {width, height, objects: {id: {name, x, y, w, h, attributes, relations: [...]}}}}."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from relvlm.data.shards.schema import Entity, Relation, Sample
from relvlm.data.shards.store import Encoded, check_free, write_shards
from relvlm.data.sources.raw import (
    PhotoFault,
    add_output_arguments,
    clip_box,
    load_json,
    progress,
    read_ids,
    report,
    sized_photo,
    tidy,
)
from relvlm.errors import UserError

EPILOG = """example:
  relvlm data build gqa --scene-graphs train_sceneGraphs.json --images images --out data/gqa
"""


def to_sample(image_id: str, graph: dict[str, Any]) -> Sample:
    """One scene graph as a sample; objects with less than a pixel inside the image go with their relations.

    Raises UserError naming the image and the field that is missing or of a wrong kind.
    """
    try:
        objects, width, height = graph["objects"], graph["width"], graph["height"]
        entities = tuple(e for i, o in objects.items() if (e := _entity(i, o, width, height)))
        relations = _relations(objects, {e.id for e in entities})
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"GQA image {image_id}: field {error} is missing or of a wrong kind") from error
    return Sample(image_id, width, height, "gqa", (), entities, relations)


def _entity(object_id: str, node: dict[str, Any], width: int, height: int) -> Entity | None:
    box = clip_box([node[k] for k in "xywh"], width, height)
    label = tidy(node["name"])
    if not box or not label:
        return None
    return Entity(object_id, label, box, tuple(dict.fromkeys(tidy(a) for a in node.get("attributes", ()))))


def _relations(objects: dict[str, dict[str, Any]], known: Collection[str]) -> tuple[Relation, ...]:
    found: dict[Relation, None] = {}
    for subject, node in objects.items():
        for relation in node.get("relations", ()):
            target, predicate = relation["object"], tidy(relation["name"])
            if predicate and subject != target and subject in known and target in known:
                found[Relation(subject, predicate, target)] = None
    return tuple(found)


def build(
    scene_graphs: Path, images: Path, out: Path, *, exclude: Collection[str] = (), shard_size: int = 1000
) -> tuple[dict[str, Any], list[str]]:
    """Write the shard set `out`; returns its manifest and the photos left out, each with its reason."""
    check_free(out)
    graphs = {i: g for i, g in load_json(scene_graphs, dict).items() if i not in exclude}
    skipped: list[str] = []
    manifest = write_shards(
        out,
        _encoded(graphs, images, skipped),
        source="gqa",
        builder_args={
            "scene_graphs": scene_graphs.name,
            "excluded": len(exclude),
            "shard_size": shard_size,
        },
        shard_size=shard_size,
        skipped=skipped,
    )
    return manifest, skipped


def _encoded(graphs: dict[str, Any], images: Path, skipped: list[str]) -> Iterator[Encoded]:
    for image_id, graph in progress(graphs.items(), "gqa"):
        sample = to_sample(image_id, graph)
        try:
            photo = sized_photo([images], f"{image_id}.jpg", sample.width, sample.height)
        except PhotoFault as fault:
            skipped.append(str(fault))
            continue
        yield image_id.zfill(8), photo, sample
    if graphs and len(skipped) == len(graphs):
        raise UserError(f"{images}: none of the {len(graphs)} photos can be used, first: {skipped[0]} (check --images)")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `relvlm data build gqa`."""
    parser.description = "Build a shard set of GQA: photos with their scene graphs."
    parser.epilog = EPILOG
    parser.add_argument("--scene-graphs", type=Path, required=True, metavar="FILE", help="train_sceneGraphs.json")
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="folder of ID.jpg")
    add_output_arguments(parser)


def main(args: argparse.Namespace) -> int:
    """Run the command; returns the exit status."""
    manifest, skipped = build(
        args.scene_graphs, args.images, args.out, exclude=read_ids(args.exclude), shard_size=args.shard_size
    )
    report(args.out, manifest, skipped)
    return 0
