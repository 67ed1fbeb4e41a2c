"""Where things stand: positions are drawn before looks, so that a relation says nothing about labels."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from relvlm.relworld.config import WorldConfig
from relvlm.relworld.lexicon import ACTIONS, PREDICATES
from relvlm.relworld.scene import Background, Fact, IntBox, Look, Scene, Thing
from relvlm.relworld.shapes import CORES, solid_mask

Axis = tuple[int, int]  # unit step from the subject towards the object, (x, y)

_AXES: dict[str, tuple[Axis, ...]] = {
    "left of": ((1, 0),),
    "right of": ((-1, 0),),
    "above": ((0, 1),),
    "below": ((0, -1),),
    "on": ((0, 1),),
    "touching": ((1, 0), (-1, 0)),
}
_ANY_AXIS: tuple[Axis, ...] = ((1, 0), (-1, 0), (0, 1), (0, -1))

# Least and greatest gap between subject and object, as a share of the image's side.
_GAPS = {
    "on": (0.0, 0.0),
    "touching": (0.0, 0.0),
    "near": (0.03, 0.09),
    "far from": (0.43, 0.52),
    "pushing": (0.1, 0.14),
    "kicking": (0.11, 0.15),
    "holding": (0.06, 0.09),
    "pulling": (0.14, 0.22),
    "pointing at": (0.18, 0.28),
    "chasing": (0.15, 0.22),
    "toward": (0.1, 0.24),
    "away from": (0.15, 0.26),
}
_DEFAULT_GAP = (0.07, 0.28)
_TRAIL = 0.12  # room for motion lines, as a share of the image's side
_TRAILS: dict[str, tuple[float, float]] = {  # behind the subject, beyond the object
    "pushing": (_TRAIL, 0),
    "chasing": (_TRAIL, 0),
    "toward": (_TRAIL, 0),
    "pulling": (0, _TRAIL),
    "holding": (0, 0.05),
}


@dataclass(frozen=True)
class Layout:
    """Boxes in drawing order; `main` is the pair that was placed on purpose, `keep_clear` what its marks need."""

    boxes: tuple[IntBox, ...]
    main: Fact
    axis: Axis
    keep_clear: IntBox
    actions: tuple[Fact, ...] = ()
    contacts: frozenset[tuple[int, int]] = field(default_factory=frozenset)
    nested: frozenset[tuple[int, int]] = field(default_factory=frozenset)


def _square(x: float, y: float, side: int) -> IntBox:
    return round(x), round(y), round(x) + side, round(y) + side


def _shift(box: IntBox, dx: int, dy: int) -> IntBox:
    return box[0] + dx, box[1] + dy, box[2] + dx, box[3] + dy


def _union(*boxes: IntBox) -> IntBox:
    x0, y0, x1, y1 = zip(*boxes, strict=True)
    return min(x0), min(y0), max(x1), max(y1)


def _overlap(a: IntBox, b: IntBox, margin: int = 0) -> int:
    width = min(a[2], b[2]) - max(a[0], b[0]) + margin
    height = min(a[3], b[3]) - max(a[1], b[1]) + margin
    return max(width, 0) * max(height, 0)


def _side(config: WorldConfig, rng: Random) -> int:
    return round(config.image_size * rng.uniform(config.min_side, config.max_side))


def _nest(config: WorldConfig, rng: Random) -> tuple[IntBox, IntBox]:
    outer = round(config.image_size * rng.uniform(0.42, 0.58))
    inner = max(6, round(0.32 * outer))
    return _square((outer - inner) / 2, (outer - inner) / 2, inner), (0, 0, outer, outer)


def _beside(config: WorldConfig, rng: Random, predicate: str, axis: Axis) -> tuple[IntBox, IntBox]:
    """Subject at the origin and the object along `axis`, at the predicate's gap."""
    size, trail = config.image_size, sum(_TRAILS.get(predicate, (0, 0))) * config.image_size
    gap = size * rng.uniform(*_GAPS.get(predicate, _DEFAULT_GAP))
    room = int((size - 3 - gap - trail) / 2)
    a, b = min(_side(config, rng), room), min(_side(config, rng), room)
    aside = min(a, b) * rng.uniform(-1, 1) * (0.12 if predicate in ACTIONS or gap == 0 else 0.35)
    if predicate in ("in front of", "behind"):
        gap, aside = -min(a, b) * rng.uniform(0.3, 0.45), min(a, b) * rng.uniform(-0.4, 0.4)
    step = (a + b) / 2 + gap
    x = a / 2 + axis[0] * step + axis[1] * aside
    y = a / 2 + axis[1] * step + axis[0] * aside
    return (0, 0, a, a), _square(x - b / 2, y - b / 2, b)


def _with_trails(subject: IntBox, obj: IntBox, predicate: str, axis: Axis, size: int) -> IntBox:
    behind, beyond = (round(share * size) for share in _TRAILS.get(predicate, (0, 0)))
    aside = beyond if predicate == "holding" else 0  # the arms pass on both sides of what they hold
    back = _shift(subject, -axis[0] * behind, -axis[1] * behind)
    front = _shift(obj, axis[0] * beyond, axis[1] * beyond)
    wide = [_shift(obj, sign * axis[1] * aside, sign * axis[0] * aside) for sign in (-1, 1)]
    return _union(subject, obj, back, front, *wide)


def _main_pair(config: WorldConfig, rng: Random, predicate: str) -> Layout | None:
    """The two things of `predicate`, somewhere in the image; None where they found no room."""
    axis, size = rng.choice(_AXES.get(predicate, _ANY_AXIS)), config.image_size
    if predicate in ("inside", "contains"):
        inner, outer = _nest(config, rng)
        subject, obj = (inner, outer) if predicate == "inside" else (outer, inner)
    else:
        subject, obj = _beside(config, rng, predicate, axis)
    hull = _with_trails(subject, obj, predicate, axis, size)
    room_x, room_y = size - 2 - (hull[2] - hull[0]), size - 2 - (hull[3] - hull[1])
    if room_x < 0 or room_y < 0:
        return None
    dx, dy = 1 + rng.randint(0, room_x) - hull[0], 1 + rng.randint(0, room_y) - hull[1]
    subject, obj, hull = _shift(subject, dx, dy), _shift(obj, dx, dy), _shift(hull, dx, dy)
    # What is covered is drawn first: the object of `inside` and `in front of`, the subject otherwise.
    first, s, o = ((obj, subject), 1, 0) if predicate in ("inside", "in front of") else ((subject, obj), 0, 1)
    action = PREDICATES[predicate].action
    return Layout(
        boxes=first,
        main=(s, predicate, o),
        axis=axis,
        keep_clear=hull if action else _union(subject, obj) if predicate in ("on", "touching") else (0, 0, 0, 0),
        actions=((s, predicate, o),) if action else (),
        contacts=frozenset({(s, o)}) if predicate in ("on", "touching") else frozenset(),
        nested=frozenset({(1, 0)}) if predicate in ("inside", "contains") else frozenset(),
    )


def _free_box(config: WorldConfig, rng: Random, layout: Layout) -> IntBox | None:
    """Room for one more thing, clear of the others or, now and then, covering a corner of one of them."""
    size, margin = config.image_size, max(2, round(0.04 * config.image_size))
    cover = rng.random() < config.occlusion
    for _ in range(24):
        side = _side(config, rng)
        box = _square(rng.randint(1, size - 1 - side), rng.randint(1, size - 1 - side), side)
        if _overlap(box, layout.keep_clear, margin):
            continue
        hits = [o for o in layout.boxes if _overlap(box, o, margin)]
        if not hits and not cover:
            return box
        if cover and len(hits) == 1 and not layout.nested and not layout.contacts:
            smaller = min(side, hits[0][2] - hits[0][0]) ** 2
            if 0.12 <= _overlap(box, hits[0]) / smaller <= 0.35:
                return box
    return None


def sample_layout(config: WorldConfig, rng: Random, predicate: str, count: int) -> Layout | None:
    """A layout of `count` things in which `predicate` holds of the main pair; None where there was no room."""
    layout = _main_pair(config, rng, predicate)
    while layout is not None and len(layout.boxes) < count:
        box = _free_box(config, rng, layout)
        if box is None:
            return None
        layout = Layout(**{**layout.__dict__, "boxes": (*layout.boxes, box)})
    return layout


def _meet(box: IntBox, look: Look, other: IntBox, other_look: Look, axis: Axis) -> IntBox:
    """Slide `box` along `axis` until the two shapes, and not only their boxes, touch."""
    mine, theirs = (solid_mask(k.shape, b[2] - b[0]) for k, b in ((look, box), (other_look, other)))
    for _ in range(mine.shape[0]):
        x0, y0, x1, y1 = (
            max(box[0], other[0]),
            max(box[1], other[1]),
            min(box[2], other[2]),
            min(box[3], other[3]),
        )
        if x1 > x0 and y1 > y0:
            a = mine[y0 - box[1] : y1 - box[1], x0 - box[0] : x1 - box[0]]
            b = theirs[y0 - other[1] : y1 - other[1], x0 - other[0] : x1 - other[0]]
            if (a & b).any():
                break
        box = _shift(box, *axis)
    return box


def _settle(layout: Layout, looks: tuple[Look, ...]) -> list[IntBox]:
    """The boxes once the shapes are known: contacts closed, nested things in the roomy part of their container."""
    boxes = list(layout.boxes)
    for i, j in layout.contacts:
        boxes[i] = _meet(boxes[i], looks[i], boxes[j], looks[j], layout.axis)
    for i, j in layout.nested:
        core_x, core_y = CORES.get(looks[j].shape, (0.5, 0.5))
        outer, side = boxes[j], boxes[i][2] - boxes[i][0]
        outer_side = outer[2] - outer[0]
        boxes[i] = _square(outer[0] + core_x * outer_side - side / 2, outer[1] + core_y * outer_side - side / 2, side)
    return boxes


def dress(size: int, layout: Layout, looks: tuple[Look, ...], background: Background) -> Scene:
    """The scene of these looks in this layout; looks are in the layout's order."""
    boxes = _settle(layout, looks)
    return Scene(
        size=size,
        things=tuple(Thing(look, box) for look, box in zip(looks, boxes, strict=True)),
        background=background,
        actions=layout.actions,
        contacts=layout.contacts,
        nested=layout.nested,
        main=layout.main,
    )
