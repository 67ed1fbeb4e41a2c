"""Foils of existence, number and counting."""

from __future__ import annotations

from random import Random

from relvlm.relworld.config import WorldConfig
from relvlm.relworld.foils import Foil, make_foil
from relvlm.relworld.lexicon import PLURALS
from relvlm.relworld.scene import Scene


def _count_of(config: WorldConfig, scene: Scene, rng: Random) -> tuple[str, int]:
    """A shape and how many of it there are; shapes with several, with one and with none alike."""
    shapes = [t.look.shape for t in scene.things]
    by_count: dict[int, list[str]] = {}
    for shape in config.shape_names:
        by_count.setdefault(shapes.count(shape), []).append(shape)
    count = rng.choice(sorted(by_count))
    return rng.choice(by_count[count]), count


def existence(config: WorldConfig, scene: Scene, rng: Random) -> Foil | None:
    """Some or none."""
    shape, count = _count_of(config, scene, rng)
    texts = [f"There are no {PLURALS[shape]} in the picture.", f"There are {PLURALS[shape]} in the picture."]
    right = int(count > 0)
    return make_foil(texts[right], texts[1 - right], min(count, 1), 1 - right)


def plurals(config: WorldConfig, scene: Scene, rng: Random) -> Foil | None:
    """One or several."""
    shape, count = _count_of(config, scene, rng)
    if count == 0:
        return None
    texts = [f"Exactly one {shape} in the picture.", f"A number of {PLURALS[shape]} in the picture."]
    words, right = (shape, PLURALS[shape]), int(count > 1)
    return make_foil(texts[right], texts[1 - right], words[right], words[1 - right])


def _number_sentence(shape: str, count: int) -> str:
    return f"There is exactly 1 {shape}." if count == 1 else f"There are exactly {count} {PLURALS[shape]}."


def _counting(shape: str, count: int, wrong: int) -> Foil:
    return make_foil(_number_sentence(shape, count), _number_sentence(shape, wrong), count, wrong)


def counting_hard(config: WorldConfig, scene: Scene, rng: Random) -> Foil | None:
    """A number against any other that the world knows."""
    shape, count = _count_of(config, scene, rng)
    return _counting(shape, count, rng.choice([n for n in range(config.max_objects + 1) if n != count]))


def counting_small(config: WorldConfig, scene: Scene, rng: Random) -> Foil | None:
    """Numbers from 0 to 3."""
    shape, count = _count_of(config, scene, rng)
    top = min(3, config.max_objects)
    return _counting(shape, count, rng.choice([n for n in range(top + 1) if n != count])) if count <= top else None


def counting_adversarial(config: WorldConfig, scene: Scene, rng: Random) -> Foil | None:
    """A large number against a smaller, hence more frequent one."""
    shape, count = _count_of(config, scene, rng)
    return _counting(shape, count, rng.randrange(count)) if count >= 2 else None
