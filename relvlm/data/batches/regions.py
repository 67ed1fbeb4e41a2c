"""Boxes to patches, regions of an image (X-VLM), triplets of its scene graph for MRC.

Boxes are (x0, y0, x1, y1), half-open; patches likewise, in whole patches.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from relvlm.config.schema import RelationWeights
from relvlm.data.shards.schema import Box, Entity, Relation, Sample
from relvlm.errors import UserError

Patches = tuple[int, int, int, int]
MIN_VISIBLE = 0.5
EQUAL = RelationWeights()


@dataclass(frozen=True)
class Region:
    """What a text looks at: patches, and the box as (cx, cy, w, h) in [0, 1] for the box loss."""

    patches: Patches
    target: tuple[float, float, float, float]
    whole: bool = False


def whole_region(image_size: int, patch_size: int) -> Region:
    """The region of a text about the whole image."""
    side = image_size // patch_size
    return Region((0, 0, side, side), (0.5, 0.5, 1.0, 1.0), whole=True)


def box_region(box: Box, image_size: int, patch_size: int) -> Region:
    """The region of a box in pixels of the resized, square image."""
    x0, y0, x1, y1 = box
    centre = ((x0 + x1) / 2 / image_size, (y0 + y1) / 2 / image_size)
    extent = ((x1 - x0) / image_size, (y1 - y0) / image_size)
    return Region(box_to_patches(box, image_size, patch_size), centre + extent)


def box_to_patches(box: Box, image_size: int, patch_size: int) -> Patches:
    """The patches that a box touches, at least one (paper summary, section 4; X-VLM's `get_image_attns`)."""
    side = image_size // patch_size
    x0, x1 = _span(box[0], box[2], patch_size, side)
    y0, y1 = _span(box[1], box[3], patch_size, side)
    return (x0, y0, x1, y1)


def _span(start: float, end: float, patch_size: int, side: int) -> tuple[int, int]:
    first = min(math.floor(start / patch_size), side - 1)
    return first, max(first + 1, min(math.ceil(end / patch_size), side))


def crop_around(box: Box, width: int, height: int, rng: Random) -> Box:
    """A random crop of whole pixels that keeps `box` whole (X-VLM)."""
    x0, y0, x1, y1 = box
    return (
        rng.randint(0, math.floor(x0)),
        rng.randint(0, math.floor(y0)),
        rng.randint(min(math.ceil(x1), width), width),
        rng.randint(min(math.ceil(y1), height), height),
    )


def visible_part(box: Box, crop: Box) -> Box | None:
    """The part of `box` inside `crop`, if that is more than half of its area."""
    x0, y0 = max(box[0], crop[0]), max(box[1], crop[1])
    x1, y1 = min(box[2], crop[2]), min(box[3], crop[3])
    if x1 <= x0 or y1 <= y0:
        return None
    share = (x1 - x0) * (y1 - y0) / ((box[2] - box[0]) * (box[3] - box[1]))
    return (x0, y0, x1, y1) if share > MIN_VISIBLE else None


def place(box: Box, crop: Box, image_size: int) -> Box:
    """The box in pixels of the crop resized to `image_size` squared."""
    sx, sy = image_size / (crop[2] - crop[0]), image_size / (crop[3] - crop[1])
    x, y = sx * (box[0] - crop[0]), sy * (box[1] - crop[1])
    return (x, y, x + sx * (box[2] - box[0]), y + sy * (box[3] - box[1]))


def choose_entities(sample: Sample, crop: Box, limit: int, rng: Random) -> list[tuple[Entity, Box]]:
    """At most `limit` entities that the crop shows, each once and at random, with the part that it shows."""
    chosen: list[tuple[Entity, Box]] = []
    for entity in rng.sample(sample.entities, len(sample.entities)):
        if len(chosen) == limit:
            break
        part = visible_part(entity.box, crop)
        if part is not None:
            chosen.append((entity, part))
    return chosen


def describe(entity: Entity, rng: Random) -> str:
    """`attribute label`, one of the attributes drawn at random; the label alone where there is none."""
    if not entity.attributes:
        return entity.label
    return f"{rng.choice(entity.attributes)} {entity.label}"


def draw_relations(relations: Sequence[Relation], limit: int, weights: RelationWeights, rng: Random) -> list[Relation]:
    """At most `limit` relations in random order; where provenances weigh differently, the heavier ones rather first.

    With weights they are draws without replacement (Efraimidis and Spirakis, 2006).
    """
    weight = [getattr(weights, r.provenance or "human") for r in relations]
    if len(set(weight)) <= 1:
        return rng.sample(relations, min(limit, len(relations)))
    late = [-math.log(1 - rng.random()) / w for w in weight]
    return [relations[i] for i in sorted(range(len(late)), key=late.__getitem__)[:limit]]


def choose_relations(
    sample: Sample,
    classes: Mapping[str, int],
    max_relations: int,
    max_entities: int,
    rng: Random,
    weights: RelationWeights = EQUAL,
) -> tuple[list[Relation], int]:
    """Random relations of known predicate over few entities, and how many have an unknown predicate."""
    known = [r for r in sample.relations if r.predicate in classes]
    chosen: list[Relation] = []
    entities: set[str] = set()
    for relation in draw_relations(known, len(known), weights, rng):
        union = entities | {relation.subject, relation.object}
        if len(chosen) < max_relations and len(union) <= max_entities:
            chosen.append(relation)
            entities = union
    return chosen, len(sample.relations) - len(known)


def read_relations(path: Path) -> dict[str, int]:
    """Relation classes by predicate, from a file of one predicate a line; raises UserError."""
    if not path.is_file():
        raise UserError(f"{path}: data.relations: no such file (one predicate a line)")
    try:
        text = path.read_text(encoding="utf-8-sig")  # editors put a byte order mark before the first predicate
    except ValueError as error:
        raise UserError(f"{path}: data.relations: not UTF-8: {error} (one predicate a line)") from error
    predicates = [line.strip() for line in text.split("\n") if line.strip()]
    repeated = sorted({p for p in predicates if predicates.count(p) > 1})
    if repeated or not predicates:
        raise UserError(f"{path}: data.relations: {f'repeated: {repeated}' if repeated else 'empty'}")
    return {predicate: i for i, predicate in enumerate(predicates)}
