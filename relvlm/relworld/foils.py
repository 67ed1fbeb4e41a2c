"""Foils: of one scene a true sentence and a false one that differs from it by a relation, a thing or a colour."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from relvlm.relworld.bank import false_predicates, open_facts
from relvlm.relworld.config import Kind, WorldConfig, all_kinds, is_held_out
from relvlm.relworld.language import article, name, statement
from relvlm.relworld.lexicon import PREDICATES
from relvlm.relworld.scene import Fact, Scene, truth

Maker = Callable[[WorldConfig, Scene, Random], "Foil | None"]


class Foil(dict[str, object]):
    """caption, foil, classes, classes_foil; `held_out` where the caption states a relation."""


def make_foil(caption: str, foil: str, right: object, wrong: object, held_out: bool = False) -> Foil:
    return Foil(caption=caption, foil=foil, classes=right, classes_foil=wrong, held_out=held_out)


def _words(kind: Kind) -> str:
    return " ".join(kind)


def _kinds(scene: Scene, fact: Fact) -> tuple[Kind, Kind]:
    return scene.things[fact[0]].look.kind, scene.things[fact[2]].look.kind


def _related_foil(
    config: WorldConfig, scene: Scene, fact: Fact, foil: tuple[Kind, str, Kind], classes: tuple[str, str]
) -> Foil:
    subject, obj = _kinds(scene, fact)
    caption = statement(_words(subject), fact[1], _words(obj))
    wrong = statement(_words(foil[0]), foil[1], _words(foil[2]))
    return make_foil(caption, wrong, *classes, held_out=is_held_out(config, subject, fact[1], obj))


def _pick_fact(config: WorldConfig, scene: Scene, rng: Random, predicates: tuple[str, ...]) -> Fact | None:
    known = open_facts(config, scene, predicates)
    main = [f for f in known if f == scene.main]
    return rng.choice(main or known) if known else None


def _replace_predicate(config: WorldConfig, scene: Scene, rng: Random, pool: tuple[str, ...]) -> Foil | None:
    fact = _pick_fact(config, scene, rng, pool)
    wrong = false_predicates(scene, fact, pool) if fact else []
    if not fact or not wrong:
        return None
    subject, obj = _kinds(scene, fact)
    predicate = rng.choice(wrong)
    inverse = PREDICATES[fact[1]].inverse
    if inverse in wrong and rng.random() < 0.5:
        predicate = str(inverse)
    return _related_foil(config, scene, fact, (subject, predicate, obj), (fact[1], predicate))


def relations(config: WorldConfig, scene: Scene, rng: Random) -> Foil | None:
    """Another spatial relation of the same two things."""
    return _replace_predicate(config, scene, rng, config.spatial)


def action_replacement(config: WorldConfig, scene: Scene, rng: Random) -> Foil | None:
    """Another action from the same actor."""
    return _replace_predicate(config, scene, rng, config.actions)


def replace_rel(config: WorldConfig, scene: Scene, rng: Random) -> Foil | None:
    """Another relation, spatial for spatial and action for action."""
    return (action_replacement if rng.random() < 0.4 else relations)(config, scene, rng)


def _swap_ends(config: WorldConfig, scene: Scene, rng: Random, pool: tuple[str, ...]) -> Foil | None:
    fact = _pick_fact(config, scene, rng, pool)
    if not fact or truth(scene, fact[2], fact[1], fact[0]) is not False:
        return None
    subject, obj = _kinds(scene, fact)
    return _related_foil(config, scene, fact, (obj, fact[1], subject), (_words(subject), _words(obj)))


def actant_swap(config: WorldConfig, scene: Scene, rng: Random) -> Foil | None:
    """The action with its ends exchanged."""
    return _swap_ends(config, scene, rng, config.actions)


def swap_obj(config: WorldConfig, scene: Scene, rng: Random) -> Foil | None:
    """Any relation with its ends exchanged."""
    return _swap_ends(config, scene, rng, config.predicates)


def swap_att(config: WorldConfig, scene: Scene, rng: Random) -> Foil | None:
    """The two things' colours exchanged; declined where that describes another thing of the scene."""
    fact = _pick_fact(config, scene, rng, config.predicates)
    if not fact:
        return None
    (c0, s0), (c1, s1) = _kinds(scene, fact)
    swapped = (c1, s0), (c0, s1)
    if c0 == c1 or {t.look.kind for t in scene.things} & set(swapped):
        return None
    return _related_foil(config, scene, fact, (swapped[0], fact[1], swapped[1]), (c0, c1))


def _replace_end(config: WorldConfig, scene: Scene, rng: Random, part: int) -> Foil | None:
    """Another colour (part 0) or shape (part 1) for one of the two things, such as no thing of the scene has."""
    fact = _pick_fact(config, scene, rng, config.predicates)
    if not fact:
        return None
    ends, end = list(_kinds(scene, fact)), rng.randrange(2)
    present = {t.look.kind for t in scene.things}
    others = [
        k for k in all_kinds(config) if k[1 - part] == ends[end][1 - part] and k != ends[end] and k not in present
    ]
    if not others:
        return None
    old, ends[end] = ends[end][part], rng.choice(others)
    return _related_foil(config, scene, fact, (ends[0], fact[1], ends[1]), (old, ends[end][part]))


def replace_att(config: WorldConfig, scene: Scene, rng: Random) -> Foil | None:
    """Another colour."""
    return _replace_end(config, scene, rng, 0)


def replace_obj(config: WorldConfig, scene: Scene, rng: Random) -> Foil | None:
    """Another shape."""
    return _replace_end(config, scene, rng, 1)


def add_att(config: WorldConfig, scene: Scene, rng: Random) -> Foil | None:
    """A colour put before a shape that has none in the caption, and that no such shape of the scene has."""
    fact = _pick_fact(config, scene, rng, config.predicates)
    if not fact:
        return None
    subject, obj = _kinds(scene, fact)
    present = {t.look.kind for t in scene.things}
    wrong = [c for c in config.colour_names if (c, subject[1]) not in present]
    if not wrong:
        return None
    colour = rng.choice(wrong)
    caption = statement(subject[1], fact[1], _words(obj))
    foil = statement(f"{colour} {subject[1]}", fact[1], _words(obj))
    return make_foil(caption, foil, "", colour, is_held_out(config, subject, fact[1], obj))


def add_obj(config: WorldConfig, scene: Scene, rng: Random) -> Foil | None:
    """A thing put in that is not there; the caption names two that are."""
    fact = _pick_fact(config, scene, rng, config.predicates)
    absent = [k for k in all_kinds(config) if k not in {t.look.kind for t in scene.things}]
    if not fact or not absent:
        return None
    subject, obj = (article(_words(k)) for k in _kinds(scene, fact))
    extra = rng.choice(absent)
    caption, foil = (
        f"There is {subject} and {obj}.",
        f"There is {subject} and {article(_words(extra))} and {obj}.",
    )
    return make_foil(caption, foil, "", _words(extra))


def foil_it(config: WorldConfig, scene: Scene, rng: Random) -> Foil | None:
    """A picture's caption with one shape replaced by one that the scene lacks."""
    thing = rng.choice(scene.things)
    shapes = {t.look.shape for t in scene.things}
    wrong = [s for s in config.shape_names if s not in shapes]
    if not wrong:
        return None
    shape = rng.choice(wrong)
    caption = f"A picture of {article(name(thing.look))}."
    return make_foil(caption, f"A picture of {article(f'{thing.look.colour} {shape}')}.", thing.look.shape, shape)
