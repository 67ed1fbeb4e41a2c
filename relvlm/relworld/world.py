"""Sampling of scenes, and of siblings: two scenes with the same labels in another relation."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from relvlm.relworld.config import WorldConfig, all_kinds
from relvlm.relworld.layout import Layout, dress, sample_layout
from relvlm.relworld.lexicon import PATTERNS, PREDICATES, TEXTURES
from relvlm.relworld.scene import Background, Look, Scene, Thing, facts, shows_held_out, truth

_TRIES = 400
_FEW_SHAPES = 0.25
Looks = tuple[Look, ...]


class NoScene(RuntimeError):
    """No scene with the wanted relation and looks was found; the caller draws other looks."""


def sample_looks(config: WorldConfig, rng: Random, count: int, avoid: Looks = ()) -> Looks:
    """`count` looks of different kinds, none of a kind in `avoid`."""
    taken, kinds = {look.kind for look in avoid}, all_kinds(config)
    if rng.random() < _FEW_SHAPES and config.shapes > 2:
        few = rng.sample(config.shape_names, 2)  # or counting would seldom have anything to count
        of_few = [k for k in kinds if k[1] in few]
        kinds = of_few if len(set(of_few) - taken) >= count else kinds  # few colours: two shapes may not suffice
    kinds = rng.sample([k for k in kinds if k not in taken], count)
    textures = TEXTURES[: config.textures]
    return tuple(Look(shape, colour, rng.choice(textures)) for colour, shape in kinds)


def sample_background(config: WorldConfig, rng: Random) -> Background:
    """A background colour and pattern."""
    word, pattern = rng.choice(config.background_names), rng.choice(PATTERNS[: config.patterns])
    return Background(word, pattern, rng.getrandbits(32))


def sample_predicate(config: WorldConfig, rng: Random) -> str:
    """The main relation of a scene: an action with probability `action_share`; within its sort the k-th as k^-tail."""
    wants_action = rng.random() < config.action_share
    pool = config.actions if (wants_action and config.actions) or not config.spatial else config.spatial
    if not config.tail:
        return rng.choice(pool)
    return rng.choices(pool, [(place + 1) ** -config.tail for place in range(len(pool))])[0]


def _in_layout_order(layout: Layout, looks: Looks) -> Looks:
    """`looks` starts with the main subject and object; the layout has them in drawing order."""
    return (looks[1], looks[0], *looks[2:]) if layout.main[0] == 1 else looks


def main_looks(scene: Scene) -> Looks:
    """The scene's looks, main subject and object first."""
    looks = tuple(thing.look for thing in scene.things)
    return (looks[1], looks[0], *looks[2:]) if scene.main[0] == 1 else looks


def _acceptable(config: WorldConfig, scene: Scene, training: bool) -> bool:
    if truth(scene, *scene.main) is not True:
        return False
    return not (training and shows_held_out(config, scene))


def sample_scene(
    config: WorldConfig,
    rng: Random,
    *,
    training: bool,
    predicate: str | None = None,
    looks: Looks | None = None,
    count: int | None = None,
    background: Background | None = None,
) -> Scene:
    """A scene whose main relation is `predicate`, of `looks` (main subject and object first) if given.

    In `training` no held-out combination is shown. Raises NoScene when the demands cannot be met.
    """
    if looks:
        count = len(looks)
    elif count is None:
        count = rng.randint(config.min_objects, config.max_objects)
    wanted = predicate or sample_predicate(config, rng)
    ground = background or sample_background(config, rng)
    for _ in range(_TRIES):
        layout = sample_layout(config, rng, wanted, count)
        if layout is None:
            continue
        chosen = looks or sample_looks(config, rng, count)
        scene = dress(config.image_size, layout, _in_layout_order(layout, chosen), ground)
        if _acceptable(config, scene, training):
            return scene
        if predicate is None:
            wanted = sample_predicate(config, rng)
    raise NoScene(f"no scene of {count} things with {wanted!r} after {_TRIES} tries")


def main_relations(config: WorldConfig, scene: Scene) -> set[tuple[Look, str, Look]]:
    """What holds between the main subject and object, by look."""
    pair = {scene.main[0], scene.main[2]}
    things = scene.things
    return {(things[i].look, p, things[j].look) for i, p, j in facts(config, scene) if {i, j} == pair}


def _exchanged(scene: Scene) -> Scene:
    """The same picture with the looks of the main subject and object exchanged: a minimal pair."""
    i, _, j = scene.main
    things = list(scene.things)
    things[i], things[j] = Thing(things[j].look, things[i].box), Thing(things[i].look, things[j].box)
    return replace(scene, things=tuple(things))


def _swapped(config: WorldConfig, scene: Scene, rng: Random, training: bool) -> Scene:
    """The same looks with the main relation kept and its ends exchanged."""
    predicate, looks = scene.main[1], main_looks(scene)
    if PREDICATES[predicate].inverse == predicate:
        raise NoScene(f"{predicate!r} is symmetric: exchanging its ends changes nothing")
    if scene.contacts or scene.nested:  # where things meet depends on their shapes
        exchanged = (looks[1], looks[0], *looks[2:])
        return sample_scene(
            config, rng, training=training, predicate=predicate, looks=exchanged, background=scene.background
        )
    mirror = _exchanged(scene)
    if not _acceptable(config, mirror, training):
        raise NoScene("the exchanged scene shows a held-out combination")
    return mirror


def _rearranged(config: WorldConfig, scene: Scene, rng: Random, training: bool) -> Scene:
    looks = list(main_looks(scene))
    if rng.random() < 0.5:
        looks[:2] = looks[1], looks[0]
    return sample_scene(config, rng, training=training, looks=tuple(looks), background=scene.background)


def sample_siblings(config: WorldConfig, rng: Random, *, training: bool) -> tuple[Scene, Scene]:
    """Two scenes with the same looks on the same background, between whose main things other relations hold."""
    for _ in range(_TRIES):
        first = sample_scene(config, rng, training=training)
        make = _swapped if rng.random() < config.swapped_share else _rearranged
        try:
            second = make(config, first, rng, training)
        except NoScene:
            continue
        if main_relations(config, first) != main_relations(config, second):
            return first, second
    raise NoScene(f"no siblings after {_TRIES} tries (held_out_share may be too large)")
