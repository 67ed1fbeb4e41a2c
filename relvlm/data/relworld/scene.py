"""A scene: things with boxes, who does what to whom, and which predicates hold between them."""

from __future__ import annotations

from dataclasses import dataclass
from math import hypot

from relvlm.data.relworld.config import Kind, WorldConfig, is_held_out
from relvlm.data.relworld.lexicon import LEFT_OPEN, PREDICATES

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


@dataclass(frozen=True)
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


def _gaps(a: IntBox, b: IntBox) -> tuple[float, float]:
    return max(b[0] - a[2], a[0] - b[2]), max(b[1] - a[3], a[1] - b[3])


def _separate(scene: Scene, i: int, j: int) -> bool:
    gx, gy = _gaps(scene.things[i].box, scene.things[j].box)
    return gx >= 0 or gy >= 0 or _in_contact(scene, i, j)


def _in_contact(scene: Scene, i: int, j: int) -> bool:
    return (i, j) in scene.contacts or (j, i) in scene.contacts


def _distance(scene: Scene, i: int, j: int) -> float:
    gx, gy = _gaps(scene.things[i].box, scene.things[j].box)
    return hypot(max(gx, 0), max(gy, 0))


def _along(scene: Scene, i: int, j: int, axis: int, sign: int) -> bool | None:
    """Does j lie from i in direction `sign` of `axis`? None unless that direction clearly dominates or fails."""
    delta = [b - a for a, b in zip(scene.things[i].centre, scene.things[j].centre, strict=True)]
    ahead, aside = sign * delta[axis], abs(delta[1 - axis])
    if not _separate(scene, i, j):
        return None
    if ahead <= 0:
        return False
    gap = _gaps(scene.things[i].box, scene.things[j].box)[axis]
    return True if ahead >= 1.6 * aside and (gap >= 0 or _in_contact(scene, i, j)) else None


def _inside(scene: Scene, i: int, j: int) -> bool | None:
    if (i, j) in scene.nested:
        return True
    return False if _separate(scene, i, j) or (j, i) in scene.nested else None


def _in_front(scene: Scene, i: int, j: int) -> bool | None:
    if _separate(scene, i, j) or (i, j) in scene.nested or (j, i) in scene.nested:
        return None
    return i > j


def _touching(scene: Scene, i: int, j: int) -> bool | None:
    if _in_contact(scene, i, j):
        return True
    return False if _distance(scene, i, j) >= 0.06 * scene.size else None


def _on(scene: Scene, i: int, j: int) -> bool | None:
    above = scene.things[i].centre[1] < scene.things[j].centre[1]
    if _in_contact(scene, i, j):
        return above and abs(scene.things[i].centre[0] - scene.things[j].centre[0]) < scene.things[j].side / 2
    return False if _separate(scene, i, j) and _distance(scene, i, j) >= 0.06 * scene.size else None


def _near(scene: Scene, i: int, j: int) -> bool | None:
    distance = _distance(scene, i, j) / scene.size
    if _in_contact(scene, i, j) or not _separate(scene, i, j):
        return None
    return True if distance <= 0.12 else False if distance >= 0.3 else None


def _far(scene: Scene, i: int, j: int) -> bool | None:
    distance = _distance(scene, i, j) / scene.size
    return True if distance >= 0.42 else False if distance <= 0.2 else None


def _acting(scene: Scene, i: int, predicate: str, j: int) -> bool | None:
    if (i, predicate, j) in scene.actions:
        return True
    for s, action, o in scene.actions:
        if {s, o} == {i, j} and (predicate, s != i) in LEFT_OPEN[action]:
            return None
    return False


_SPATIAL = {
    "left of": lambda scene, i, j: _along(scene, i, j, 0, 1),
    "right of": lambda scene, i, j: _along(scene, i, j, 0, -1),
    "above": lambda scene, i, j: _along(scene, i, j, 1, 1),
    "below": lambda scene, i, j: _along(scene, i, j, 1, -1),
    "inside": _inside,
    "contains": lambda scene, i, j: _inside(scene, j, i),
    "in front of": _in_front,
    "behind": lambda scene, i, j: _in_front(scene, j, i),
    "on": _on,
    "touching": _touching,
    "near": _near,
    "far from": _far,
}


def truth(scene: Scene, i: int, predicate: str, j: int) -> bool | None:
    """Whether `predicate` holds from thing i to thing j; None where readers could differ."""
    if PREDICATES[predicate].action:
        return _acting(scene, i, predicate, j)
    holds = _SPATIAL[predicate](scene, i, j)
    left_open = any(
        {s, o} == {i, j} and (predicate, s != i) in LEFT_OPEN[action] for s, action, o in scene.actions
    )
    return None if left_open else holds


def facts(config: WorldConfig, scene: Scene) -> list[Fact]:
    """Every triplet that clearly holds, of the predicates in use."""
    n = len(scene.things)
    return [
        (i, p, j)
        for i in range(n)
        for j in range(n)
        if i != j
        for p in config.predicates
        if truth(scene, i, p, j) is True
    ]


def fact_held_out(config: WorldConfig, scene: Scene, fact: Fact) -> bool:
    """Whether the fact's combination is one that training never shows."""
    i, predicate, j = fact
    return is_held_out(config, scene.things[i].look.kind, predicate, scene.things[j].look.kind)


def shows_held_out(config: WorldConfig, scene: Scene) -> bool:
    """Whether any fact of the scene is held out."""
    return any(fact_held_out(config, scene, fact) for fact in facts(config, scene))
