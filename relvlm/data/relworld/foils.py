"""VALSE and SugarCrepe files: one image, a true sentence and a false one that differs by little."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random

from relvlm.data.relworld.bank import Bank, Row, collect, false_predicates, open_facts, pair_looks
from relvlm.data.relworld.config import Kind, WorldConfig, all_kinds, is_held_out
from relvlm.data.relworld.language import article, name, statement
from relvlm.data.relworld.lexicon import PLURALS, PREDICATES
from relvlm.data.relworld.scene import Fact, Scene, truth
from relvlm.data.relworld.world import NoScene, sample_predicate, sample_scene

_ATTEMPTS = 60  # calls of a maker per wanted row
Maker = Callable[[WorldConfig, Scene, Random], "Foil | None"]


class Foil(dict[str, object]):
    """caption, foil, classes, classes_foil; `held_out` where the caption states a relation."""


def _foil(caption: str, foil: str, right: object, wrong: object, held_out: bool = False) -> Foil:
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
    return _foil(caption, wrong, *classes, held_out=is_held_out(config, subject, fact[1], obj))


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
        k
        for k in all_kinds(config)
        if k[1 - part] == ends[end][1 - part] and k != ends[end] and k not in present
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
    return _foil(caption, foil, "", colour, is_held_out(config, subject, fact[1], obj))


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
    return _foil(caption, foil, "", _words(extra))


def foil_it(config: WorldConfig, scene: Scene, rng: Random) -> Foil | None:
    """A picture's caption with one shape replaced by one that the scene lacks."""
    thing = rng.choice(scene.things)
    shapes = {t.look.shape for t in scene.things}
    wrong = [s for s in config.shape_names if s not in shapes]
    if not wrong:
        return None
    shape = rng.choice(wrong)
    caption = f"A picture of {article(name(thing.look))}."
    return _foil(caption, f"A picture of {article(f'{thing.look.colour} {shape}')}.", thing.look.shape, shape)


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
    return _foil(texts[right], texts[1 - right], min(count, 1), 1 - right)


def plurals(config: WorldConfig, scene: Scene, rng: Random) -> Foil | None:
    """One or several."""
    shape, count = _count_of(config, scene, rng)
    if count == 0:
        return None
    texts = [f"Exactly one {shape} in the picture.", f"A number of {PLURALS[shape]} in the picture."]
    words, right = (shape, PLURALS[shape]), int(count > 1)
    return _foil(texts[right], texts[1 - right], words[right], words[1 - right])


def _number_sentence(shape: str, count: int) -> str:
    return f"There is exactly 1 {shape}." if count == 1 else f"There are exactly {count} {PLURALS[shape]}."


def _counting(shape: str, count: int, wrong: int) -> Foil:
    return _foil(_number_sentence(shape, count), _number_sentence(shape, wrong), count, wrong)


def counting_hard(config: WorldConfig, scene: Scene, rng: Random) -> Foil | None:
    """A number against any other that the world knows."""
    shape, count = _count_of(config, scene, rng)
    return _counting(shape, count, rng.choice([n for n in range(config.max_objects + 1) if n != count]))


def counting_small(config: WorldConfig, scene: Scene, rng: Random) -> Foil | None:
    """Numbers from 0 to 3."""
    shape, count = _count_of(config, scene, rng)
    top = min(3, config.max_objects)
    return (
        _counting(shape, count, rng.choice([n for n in range(top + 1) if n != count]))
        if count <= top
        else None
    )


def counting_adversarial(config: WorldConfig, scene: Scene, rng: Random) -> Foil | None:
    """A large number against a smaller, hence more frequent one."""
    shape, count = _count_of(config, scene, rng)
    return _counting(shape, count, rng.randrange(count)) if count >= 2 else None


VALSE: dict[str, tuple[str, Maker]] = {  # file: (linguistic phenomenon, maker)
    "existence": ("existence", existence),
    "plurals": ("plurals", plurals),
    "counting-hard": ("counting", counting_hard),
    "counting-small-quant": ("counting", counting_small),
    "counting-adversarial": ("counting", counting_adversarial),
    "relations": ("relations", relations),
    "action-replacement": ("actions", action_replacement),
    "actant-swap": ("actions", actant_swap),
    "foil-it": ("noun phrases", foil_it),
}
SUGARCREPE: dict[str, Maker] = {
    "add_att": add_att,
    "add_obj": add_obj,
    "replace_att": replace_att,
    "replace_obj": replace_obj,
    "replace_rel": replace_rel,
    "swap_att": swap_att,
    "swap_obj": swap_obj,
}


def scene_pool(bank: Bank) -> list[tuple[int, Scene]]:
    """Scenes that the foil files share; a quarter of them show a held-out main relation."""
    rng, config = bank.rng("pool"), bank.config
    pool: list[tuple[int, Scene]] = []
    while len(pool) < max(40, config.benchmark_pairs // 2):
        predicate = sample_predicate(config, rng)
        looks = pair_looks(config, rng, predicate, rng.randint(config.min_objects, config.max_objects))
        try:
            scene = sample_scene(config, rng, training=False, predicate=predicate, looks=looks)
        except NoScene:
            continue
        pool.append((bank.add(scene), scene))
    return pool


def _rows(bank: Bank, pool: list[tuple[int, Scene]], stream: str, make: Maker, balanced: bool) -> list[Row]:
    """Distinct rows of one file; if `balanced`, what is right in one row is wrong in another, as near as can be."""
    rng, seen, uses = bank.rng(stream), set[tuple[int, object, object]](), Counter[tuple[str, str]]()

    def one() -> Row | None:
        image, scene = rng.choice(pool)
        foil = make(bank.config, scene, rng)
        if foil is None or (image, foil["caption"], foil["foil"]) in seen:
            return None
        right, wrong = str(foil["classes"]), str(foil["classes_foil"])
        if balanced and uses[right, wrong] > uses[wrong, right]:
            return None
        uses[right, wrong] += 1
        seen.add((image, foil["caption"], foil["foil"]))
        return {"image": f"{image}.jpg", **foil}

    wanted = max(20, bank.config.benchmark_pairs // 5)
    return collect(wanted, _ATTEMPTS * wanted, one)


def write_valse(bank: Bank, pool: list[tuple[int, Scene]], folder: Path) -> None:
    """One JSON object a piece, keyed by example; a piece that the world cannot show is left out."""
    folder.mkdir(parents=True)
    for piece, (phenomenon, make) in VALSE.items():
        rows = _rows(bank, pool, f"valse/{piece}", make, balanced=piece != "counting-adversarial")
        records = {
            f"{piece}_{n}": {
                "dataset": "relworld",
                "original_split": "test",
                "dataset_idx": n,
                "linguistic_phenomena": phenomenon,
                "image_file": row.pop("image"),
                **row,
                "mturk": {"foil": 0, "caption": 3, "other": 0},
            }
            for n, row in enumerate(rows)
        }
        if records:
            (folder / f"{piece}.json").write_text(json.dumps(records, indent=1))


def write_sugarcrepe(bank: Bank, pool: list[tuple[int, Scene]], folder: Path) -> None:
    """Seven files: filename, caption, negative_caption."""
    folder.mkdir(parents=True)
    for piece, make in SUGARCREPE.items():
        rows = _rows(bank, pool, f"sugarcrepe/{piece}", make, balanced=not piece.startswith("add"))
        records = {
            str(n): {
                "filename": row["image"],
                "caption": row["caption"],
                "negative_caption": row["foil"],
                "held_out": row["held_out"],
            }
            for n, row in enumerate(rows)
        }
        if records:
            (folder / f"{piece}.json").write_text(json.dumps(records, indent=1))
