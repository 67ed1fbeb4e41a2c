"""The pictures of the benchmarks: scenes of held-out streams under plain integer ids, and rows that use them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, TypeVar

from relvlm.relworld.config import WorldConfig, held_out, is_held_out
from relvlm.relworld.lexicon import PREDICATES
from relvlm.relworld.render import jpeg
from relvlm.relworld.scene import Fact, Scene, facts, truth
from relvlm.relworld.world import Looks, NoScene, sample_looks, sample_scene

Row = dict[str, Any]
T = TypeVar("T")
_TRIES = 200
_HELD_OUT_ROWS = 0.25


@dataclass
class Bank:
    """Every scene that a benchmark shows; ids run on over all benchmarks. `names`: of files that are not `<id>.jpg`."""

    config: WorldConfig
    seed: int
    scenes: dict[int, Scene] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)

    def rng(self, stream: str) -> Random:
        """A random stream of its own, apart from the training sets' streams."""
        return Random(f"{self.seed}/benchmarks/{stream}")

    def add(self, scene: Scene, name: str = "") -> int:
        """Keep the scene, under a name of its own where the benchmark reads it; returns its image id."""
        image_id = 1_000_001 + len(self.scenes)
        self.scenes[image_id] = scene
        if name:
            self.names[image_id] = name
        return image_id

    def write(self, folder: Path, tick: Callable[[], object]) -> None:
        """Write the picture of every scene; `tick` is called after each."""
        folder.mkdir(parents=True)
        for image_id, scene in self.scenes.items():
            path = folder / self.names.get(image_id, f"{image_id}.jpg")
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(jpeg(scene))
            tick()


def pair_looks(config: WorldConfig, rng: Random, predicate: str, count: int) -> Looks:
    """Looks, main subject and object first; a quarter of the time their combination is one held out."""
    looks = sample_looks(config, rng, count)
    if rng.random() >= _HELD_OUT_ROWS or not held_out(config):
        return looks
    for _ in range(_TRIES):
        if is_held_out(config, looks[0].kind, predicate, looks[1].kind):
            break
        looks = sample_looks(config, rng, count)
    return looks


def twins(config: WorldConfig, rng: Random, predicates: tuple[str, ...]) -> tuple[Scene, str, Scene, str]:
    """Two scenes of the same looks and a predicate for each that clearly holds there and clearly not in the other.

    Both predicates go from looks[0] to looks[1], so the two statements name the same things in the same order.
    """
    for _ in range(_TRIES):
        first, second = _two_predicates(rng, predicates)
        count = rng.randint(config.min_objects, config.max_objects)
        looks = pair_looks(config, rng, first, count)
        try:
            a = sample_scene(config, rng, training=False, predicate=first, looks=looks)
            b = sample_scene(config, rng, training=False, predicate=second, looks=looks, background=a.background)
        except NoScene:
            continue
        if _between_main(b, first) is False and _between_main(a, second) is False:
            return a, first, b, second
    raise NoScene(f"no twins for {', '.join(predicates)} after {_TRIES} tries")


def _two_predicates(rng: Random, predicates: tuple[str, ...]) -> tuple[str, str]:
    """Half of the time a predicate and its inverse, the hardest foil."""
    first = rng.choice(predicates)
    inverse = PREDICATES[first].inverse
    if inverse in predicates and inverse != first and rng.random() < 0.5:
        return first, str(inverse)
    return first, rng.choice([p for p in predicates if p != first])


def _between_main(scene: Scene, predicate: str) -> bool | None:
    return truth(scene, scene.main[0], predicate, scene.main[2])


def open_facts(config: WorldConfig, scene: Scene, predicates: tuple[str, ...]) -> list[Fact]:
    """The scene's facts of these predicates."""
    return [fact for fact in facts(config, scene) if fact[1] in predicates]


def false_predicates(scene: Scene, fact: Fact, predicates: tuple[str, ...]) -> list[str]:
    """Those of `predicates` that clearly do not hold between the fact's ends."""
    i, _, j = fact
    return [p for p in predicates if truth(scene, i, p, j) is False]


def collect(rows: int, attempts: int, make: Callable[[], T | None]) -> list[T]:
    """Up to `rows` results of `make`, which may decline; stops after `attempts` calls."""
    found: list[T] = []
    for _ in range(attempts):
        if len(found) == rows:
            break
        row = make()
        if row is not None:
            found.append(row)
    return found
