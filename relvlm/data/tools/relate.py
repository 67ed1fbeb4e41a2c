"""Spatial relations from boxes: only what two rectangles can decide, and only where they decide it clearly.

Relations that captions state are taken too, if asked for (caption_triplets.py). Each says where it comes from.

Lengths are of the boxes of subject and object; left and right are the viewer's.

- *left of / right of*: apart horizontally (sharing at most `slack` of the smaller width), at like heights (sharing
  at least `aligned` of the smaller height).
- *far from* (only if asked for, since it says little): a gap of at least `far` times the longest side of the two boxes
  and half the image's diagonal.
- *above / below* (only if asked for): apart vertically, one over the other (sharing at least `aligned` of the
  smaller width). In a photograph, higher up is as often farther away: of those drawn from some 30 COCO photos
  about half were false to the eye. Right for drawings, plans, screens.

Not derived, because rectangles cannot tell: on, inside, touching, behind, next to. Pairs in which a box is smaller than
`min_area` of the image, or whose labels are the same, are left out.
"""

from __future__ import annotations

import argparse
import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import combinations, zip_longest
from math import hypot
from pathlib import Path
from random import Random
from typing import Any, Literal

from relvlm.data.arguments import positive, shard_set, share
from relvlm.data.shards.schema import Box, Entity, Relation, Sample
from relvlm.data.sources.building import add_driver_arguments
from relvlm.data.sources.faults import Faults
from relvlm.data.sources.item import Item, Size
from relvlm.data.sources.meter import Meter
from relvlm.data.sources.raw import check_size
from relvlm.data.tools.caption_triplets import CaptionParser, read_predicates
from relvlm.data.tools.stored import StoredSets, copy_and_report, opened

MIRROR = {
    "left of": "right of",
    "right of": "left of",
    "above": "below",
    "below": "above",
    "far from": "far from",
}


ARGUMENTS = ("relate", "caption predicates", "replace", "input")  # in a manifest, what a copy was made by
PHOTO_PREDICATES = ("left of", "right of")


@dataclass(frozen=True)
class Rules:
    """When a pair of boxes is clear enough, and how many relations an image gets."""

    predicates: tuple[str, ...] = PHOTO_PREDICATES
    limit: int = 16  # relations per image
    mirrored: Literal["both", "one"] = "both"  # keep "b right of a" beside "a left of b", or one of them by chance
    unique: bool = False  # only entities whose label occurs once in the image
    seed: int = 0
    min_area: float = 0.004  # of the image
    slack: float = 0.05  # of the smaller side
    aligned: float = 0.5  # of the smaller side
    far: float = 1.5  # of the longest side


def overlap(a0: float, a1: float, b0: float, b1: float) -> float:
    """Length that two intervals share; negative where there is a gap between them."""
    return min(a1, b1) - max(a0, b0)


def predicates(subject: Box, target: Box, width: int, height: int, rules: Rules) -> list[str]:
    """The predicates that hold from `subject` to `target` in an image of `width` x `height`."""
    shared_x = overlap(subject[0], subject[2], target[0], target[2]) / _smaller(subject, target, 0)
    shared_y = overlap(subject[1], subject[3], target[1], target[3]) / _smaller(subject, target, 1)
    found = []
    if shared_x <= rules.slack and shared_y >= rules.aligned:
        found.append("left of" if _center(subject, 0) < _center(target, 0) else "right of")
    if shared_y <= rules.slack and shared_x >= rules.aligned:
        found.append("above" if _center(subject, 1) < _center(target, 1) else "below")
    if _far(subject, target, hypot(width, height), rules):
        found.append("far from")
    return [predicate for predicate in found if predicate in rules.predicates]


def _smaller(a: Box, b: Box, axis: int) -> float:
    return min(a[axis + 2] - a[axis], b[axis + 2] - b[axis])


def _center(box: Box, axis: int) -> float:
    return (box[axis] + box[axis + 2]) / 2


def _far(a: Box, b: Box, diagonal: float, rules: Rules) -> bool:
    gap = hypot(max(0.0, -overlap(a[0], a[2], b[0], b[2])), max(0.0, -overlap(a[1], a[3], b[1], b[3])))
    longest = max(box[axis + 2] - box[axis] for box in (a, b) for axis in (0, 1))
    return gap >= max(rules.far * longest, diagonal / 2)


def derive(sample: Sample, rules: Rules = Rules()) -> list[Relation]:
    """All relations that the boxes decide: one per pair and predicate, the mirror image left out."""
    entities = _clear_entities(sample, rules)
    return [
        Relation(a.id, predicate, b.id, "boxes")
        for a, b in combinations(entities, 2)
        if a.label != b.label
        for predicate in predicates(a.box, b.box, sample.width, sample.height, rules)
    ]


def _clear_entities(sample: Sample, rules: Rules) -> list[Entity]:
    times = Counter(e.label for e in sample.entities)
    smallest = rules.min_area * sample.width * sample.height
    return [e for e in sample.entities if _area(e.box) >= smallest and not (rules.unique and times[e.label] > 1)]


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def choose(relations: list[Relation], image_id: str, rules: Rules = Rules()) -> list[Relation]:
    """At most `rules.limit` of `derive`'s relations, the axes taking turns; the same for the same seed and image.

    Each relation is written in one of its two directions by chance, or (`mirrored="both"`) in both.
    """
    chance = Random(hashlib.sha256(f"{rules.seed}/{image_id}".encode()).digest())
    axes: dict[frozenset[str], list[Relation]] = {}
    for relation in relations:
        axes.setdefault(frozenset((relation.predicate, MIRROR[relation.predicate])), []).append(relation)
    for group in axes.values():
        chance.shuffle(group)
    taken = [r for turn in zip_longest(*axes.values()) for r in turn if r is not None]
    pairs = [_directions(r, chance, rules) for r in taken]
    return [r for pair in pairs for r in pair][: rules.limit]


def _directions(relation: Relation, chance: Random, rules: Rules) -> list[Relation]:
    both = [relation, Relation(relation.object, MIRROR[relation.predicate], relation.subject, "boxes")]
    chance.shuffle(both)
    return both if rules.mirrored == "both" else both[:1]


def relate_sample(
    sample: Sample, rules: Rules = Rules(), parser: CaptionParser | None = None, keep: bool = True
) -> Sample:
    """The sample with what its captions say behind the relations that it has, and what its boxes decide behind that.

    A relation keeps the provenance under which it came first. `keep`: whether those that it has stay.
    """
    said = parser.triplets(sample) if parser else []
    derived = choose(derive(sample, rules), sample.image_id, rules)
    return replace(sample, relations=tuple(dict.fromkeys((*(sample.relations if keep else ()), *said, *derived))))


@dataclass(frozen=True)
class Related(StoredSets):
    """The one set, with relations derived from its boxes and, with a parser, read out of its captions."""

    rules: Rules = Rules()
    parser: CaptionParser | None = None
    keep: bool = True

    @property
    def name(self) -> str:
        return str(opened(self.folders[0]).manifest.get("source", ""))

    def arguments(self) -> dict[str, Any]:
        rules = {**asdict(self.rules), "predicates": list(self.rules.predicates)}
        said = list(self.parser.predicates) if self.parser else None
        values = rules, said, not self.keep, opened(self.folders[0]).manifest.get("builder", {})
        return {key: value for key, value in zip(ARGUMENTS, values, strict=True) if value}

    def items(self, faults: Faults, meter: Meter) -> Iterator[Item]:
        return (item for _, item in self.records(faults, meter))

    def sample(self, item: Item, size: Size, faults: Faults) -> Sample:
        check_size(item.photo.name, size, (item.record.width, item.record.height))
        return relate_sample(item.record, self.rules, self.parser, self.keep)


EPILOG = """examples:
  relvlm data relate data/coco data/coco_spatial
  relvlm data relate data/drawings data/drawings_spatial --predicates "left of" "right of" above below
  relvlm data relate data/coco data/coco_graphs --captions data/gqa/relations.txt --mirrored one
  relvlm data preview data/coco_spatial --out look.html     # are they true to the eye?
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `relvlm data relate`."""
    parser.description = "Copy a shard set, adding the spatial relations that its boxes decide clearly."
    parser.epilog = EPILOG
    rules = Rules()
    parser.add_argument("source", type=shard_set, metavar="IN", help="shard set with boxes")
    parser.add_argument("out", type=Path, metavar="OUT", help="new folder")
    parser.add_argument(
        "--predicates",
        nargs="+",
        choices=sorted(MIRROR),
        default=rules.predicates,
        metavar="P",
        help=f"of {', '.join(MIRROR)} (left of and right of: photos often belie above and below, far from says little)",
    )
    parser.add_argument("--limit", type=positive, default=rules.limit, metavar="N", help="relations per image (16)")
    parser.add_argument(
        "--mirrored",
        choices=("both", "one"),
        default=rules.mirrored,
        help="keep both directions of a relation, or one by chance (both)",
    )
    parser.add_argument("--unique", action="store_true", help="only entities whose label occurs once in the image")
    parser.add_argument("--seed", type=int, default=rules.seed, help="of the choice under --limit (0)")
    parser.add_argument(
        "--min-area",
        type=share,
        default=rules.min_area,
        metavar="SHARE",
        help="smallest box, as a share of the image (0.004)",
    )
    parser.add_argument(
        "--captions",
        type=Path,
        metavar="FILE",
        help="take `label predicate label` out of captions too, word for word, with the predicates of FILE, one a line",
    )
    parser.add_argument("--replace", action="store_true", help="in place of the relations that are there")
    add_driver_arguments(parser)


def asked(args: argparse.Namespace) -> Related:
    """What the flags of `add_arguments` ask for."""
    rules = Rules(
        predicates=tuple(args.predicates),
        limit=args.limit,
        mirrored=args.mirrored,
        unique=args.unique,
        seed=args.seed,
        min_area=args.min_area,
    )
    parser = CaptionParser(read_predicates(args.captions)) if args.captions else None
    return Related((args.source,), rules=rules, parser=parser, keep=not args.replace)


def main(args: argparse.Namespace) -> int:
    """Run the command; returns the exit status."""
    return copy_and_report(asked(args), args)
