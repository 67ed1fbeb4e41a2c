"""What the world is made of: shapes, colours, textures, sizes, backgrounds and predicates."""

from __future__ import annotations

from dataclasses import dataclass

RGB = tuple[int, int, int]

SHAPES = ("circle", "square", "triangle", "star", "cross", "heart", "diamond", "moon", "hourglass", "house")
PLURALS = {shape: shape + ("es" if shape.endswith("s") else "s") for shape in SHAPES}
COLOURS: dict[str, RGB] = {
    "red": (222, 40, 40),
    "green": (40, 168, 60),
    "blue": (45, 80, 225),
    "yellow": (245, 220, 40),
    "purple": (140, 50, 190),
    "orange": (250, 140, 25),
    "cyan": (60, 205, 225),
    "pink": (250, 130, 190),
}
TEXTURES = ("solid", "striped", "dotted", "checkered")
SIZES = ("small", "large")
BACKGROUNDS: dict[str, RGB] = {
    "white": (246, 246, 246),
    "gray": (186, 186, 186),
    "beige": (232, 218, 190),
    "black": (38, 38, 42),
}
PATTERNS = ("plain", "gradient", "noisy")


@dataclass(frozen=True)
class Predicate:
    """A relation word; `inverse` holds from object to subject, the name itself if symmetric.

    Predicates of one `family` hold of the same unordered pair, so they are held out together. `vsr` marks those
    that are relation strings of VSR.
    """

    name: str
    family: str
    inverse: str | None = None
    action: bool = False
    vsr: bool = False


_TABLE = (
    Predicate("left of", "horizontal", "right of", vsr=True),
    Predicate("right of", "horizontal", "left of", vsr=True),
    Predicate("above", "vertical", "below", vsr=True),
    Predicate("below", "vertical", "above", vsr=True),
    Predicate("inside", "containment", "contains", vsr=True),
    Predicate("contains", "containment", "inside", vsr=True),
    Predicate("in front of", "depth", "behind", vsr=True),
    Predicate("behind", "depth", "in front of", vsr=True),
    Predicate("on", "support", vsr=True),
    Predicate("touching", "contact", "touching", vsr=True),
    Predicate("near", "proximity", "near", vsr=True),
    Predicate("far from", "distance", "far from", vsr=True),
    Predicate("facing", "facing", action=True, vsr=True),
    Predicate("facing away from", "facing away", action=True, vsr=True),
    Predicate("toward", "toward", action=True, vsr=True),
    Predicate("away from", "away", action=True, vsr=True),
    Predicate("pushing", "pushing", action=True),
    Predicate("pulling", "pulling", action=True),
    Predicate("holding", "holding", action=True),
    Predicate("pointing at", "pointing", action=True),
    Predicate("chasing", "chasing", action=True),
    Predicate("kicking", "kicking", action=True),
)
PREDICATES: dict[str, Predicate] = {p.name: p for p in _TABLE}
ACTIONS = tuple(p.name for p in _TABLE if p.action)

# What an action leaves open: predicates that a careful reader could grant besides it (True: from object to subject).
LEFT_OPEN: dict[str, frozenset[tuple[str, bool]]] = {
    "pushing": frozenset({("toward", False), ("touching", False), ("touching", True), ("facing", False)}),
    "pulling": frozenset({("toward", True), ("away from", False), ("holding", False)}),
    "holding": frozenset({("touching", False), ("touching", True), ("facing", False)}),
    "pointing at": frozenset({("facing", False)}),
    "chasing": frozenset({("toward", False), ("away from", True), ("facing", False), ("facing away from", True)}),
    "kicking": frozenset({("touching", False), ("touching", True), ("facing", False)}),
    "toward": frozenset({("facing", False), ("chasing", False)}),
    "away from": frozenset({("facing away from", False)}),
    "facing": frozenset({("pointing at", False)}),
    "facing away from": frozenset(),
}
