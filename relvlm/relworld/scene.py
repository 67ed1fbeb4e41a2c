"""A scene: things with boxes, who does what to whom, and which predicates hold between them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations
from math import hypot
from typing import NamedTuple

from relvlm.relworld.config import Kind, WorldConfig, is_held_out
from relvlm.relworld.lexicon import LEFT_OPEN, PREDICATES

IntBox = tuple[int, int, int, int]
Fact = tuple[int, str, int]  # (subject index, predicate, object index)


@dataclass(frozen=True)
class Look:
    """What a thing looks like, wherever it stands."""

    shape: str
    colour: str
    texture: str = "solid"

    @property
    def kind(self) -> Kind:
        """(colour, shape): unique within a scene, so that "the red circle" names one thing."""
        return self.colour, self.shape


@dataclass(frozen=True)
class Thing:
    """A look at a place; the box is half-open pixels, tight around the shape, occluded parts included."""

    look: Look
    box: IntBox

    @property
    def side(self) -> int:
        """Width in pixels (height is equal)."""
        return self.box[2] - self.box[0]

    @property
    def centre(self) -> tuple[float, float]:
        """(x, y) in pixels."""
        return (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2


@dataclass(frozen=True)
class Background:
    """`word` names its colour."""

    word: str
    pattern: str = "plain"
    seed: int = 0


@dataclass(frozen=True, eq=False)  # hashed by identity: `facts` keeps what it found of the last scenes
class Scene:
    """Things in drawing order (later ones cover earlier ones); contacts, nestings and actions are by index."""

    size: int
    things: tuple[Thing, ...]
    background: Background
    actions: tuple[Fact, ...] = ()
    contacts: frozenset[tuple[int, int]] = frozenset()
    nested: frozenset[tuple[int, int]] = frozenset()
    main: Fact = (0, "", 1)

    def size_word(self, index: int) -> str | None:
        """ "small", "large", or None for what a reader would call neither."""
        share = self.things[index].side / self.size
        return "small" if share < 0.21 else "large" if share > 0.3 else None


class _Relative(NamedTuple):
    """How thing j stands to thing i; lengths are shares of the image's side."""

    dx: float  # of the centres, from i to j
    dy: float
    gap_x: float  # between the boxes, negative where they overlap along that axis
    gap_y: float
    contact: bool
    holds: bool  # i is nested in j
    held: bool  # j is nested in i
    later: bool  # i is drawn after j
    reach: float  # half of j's side
    separate: bool  # neither covers a part of the other
    distance: float  # between the boxes


def _relative(scene: Scene, i: int, j: int) -> _Relative:
    (ax0, ay0, ax1, ay1), (bx0, by0, bx1, by1) = scene.things[i].box, scene.things[j].box
    size = scene.size
    gap_x, gap_y = max(bx0 - ax1, ax0 - bx1) / size, max(by0 - ay1, ay0 - by1) / size
    contact = (i, j) in scene.contacts or (j, i) in scene.contacts
    return _Relative(
        dx=(bx0 + bx1 - ax0 - ax1) / 2 / size,
        dy=(by0 + by1 - ay0 - ay1) / 2 / size,
        gap_x=gap_x,
        gap_y=gap_y,
        contact=contact,
        holds=(i, j) in scene.nested,
        held=(j, i) in scene.nested,
        later=i > j,
        reach=(bx1 - bx0) / 2 / size,
        separate=gap_x >= 0 or gap_y >= 0 or contact,
        distance=hypot(max(gap_x, 0), max(gap_y, 0)),
    )


def _along(rel: _Relative, ahead: float, aside: float, gap: float) -> bool | None:
    """Does j lie `ahead` of i? None unless that direction clearly dominates or clearly fails."""
    if not rel.separate:
        return None
    if ahead <= 0:
        return False
    return True if ahead >= 1.6 * abs(aside) and (gap >= 0 or rel.contact) else None


def _inside(rel: _Relative) -> bool | None:
    return True if rel.holds else False if rel.separate or rel.held else None


def _contains(rel: _Relative) -> bool | None:
    return True if rel.held else False if rel.separate or rel.holds else None


def _in_front(rel: _Relative, first: bool) -> bool | None:
    return None if rel.separate or rel.holds or rel.held else rel.later == first


def _touching(rel: _Relative) -> bool | None:
    return True if rel.contact else False if rel.distance >= 0.06 else None


def _on(rel: _Relative) -> bool | None:
    if rel.contact:
        return rel.dy > 0 and abs(rel.dx) < rel.reach
    return False if rel.separate and rel.distance >= 0.06 else None


def _near(rel: _Relative) -> bool | None:
    if rel.contact or not rel.separate:
        return None
    return True if rel.distance <= 0.12 else False if rel.distance >= 0.3 else None


def _far(rel: _Relative) -> bool | None:
    return True if rel.distance >= 0.42 else False if rel.distance <= 0.2 else None


_SPATIAL: dict[str, Callable[[_Relative], bool | None]] = {
    "left of": lambda rel: _along(rel, rel.dx, rel.dy, rel.gap_x),
    "right of": lambda rel: _along(rel, -rel.dx, rel.dy, rel.gap_x),
    "above": lambda rel: _along(rel, rel.dy, rel.dx, rel.gap_y),
    "below": lambda rel: _along(rel, -rel.dy, rel.dx, rel.gap_y),
    "inside": _inside,
    "contains": _contains,
    "in front of": lambda rel: _in_front(rel, True),
    "behind": lambda rel: _in_front(rel, False),
    "on": _on,
    "touching": _touching,
    "near": _near,
    "far from": _far,
}


def _left_open(scene: Scene, i: int, predicate: str, j: int) -> bool:
    """Whether an action between the two leaves it to the reader if `predicate` holds too."""
    return any((predicate, s != i) in LEFT_OPEN[action] for s, action, o in scene.actions if {s, o} == {i, j})


def truth(scene: Scene, i: int, predicate: str, j: int) -> bool | None:
    """Whether `predicate` holds from thing i to thing j; None where readers could differ."""
    if (i, predicate, j) in scene.actions:
        return True
    if _left_open(scene, i, predicate, j):
        return None
    return False if PREDICATES[predicate].action else _SPATIAL[predicate](_relative(scene, i, j))


@lru_cache(maxsize=64)
def facts(config: WorldConfig, scene: Scene) -> tuple[Fact, ...]:
    """Every triplet that clearly holds, of the predicates in use: by subject, object, then predicate."""
    n, spatial = len(scene.things), config.spatial
    found: list[Fact] = []
    for i, j in permutations(range(n), 2):
        rel = _relative(scene, i, j)
        true = [p for p in spatial if _SPATIAL[p](rel)]
        if scene.actions:
            true = [p for p in true if not _left_open(scene, i, p, j)]
        found.extend((i, p, j) for p in true)
        found.extend(fact for fact in scene.actions if fact[0] == i and fact[2] == j)
    return tuple(found)


def fact_held_out(config: WorldConfig, scene: Scene, fact: Fact) -> bool:
    """Whether the fact's combination is one that training never shows."""
    i, predicate, j = fact
    return is_held_out(config, scene.things[i].look.kind, predicate, scene.things[j].look.kind)


def shows_held_out(config: WorldConfig, scene: Scene) -> bool:
    """Whether any fact of the scene is held out."""
    return any(fact_held_out(config, scene, fact) for fact in facts(config, scene))
