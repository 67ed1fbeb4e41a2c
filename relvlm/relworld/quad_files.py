"""COLA, ColorSwap and VisMin files: two images and two captions, each true of one of them."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

from relvlm.relworld.bank import Bank, Row, collect, twins
from relvlm.relworld.config import WorldConfig
from relvlm.relworld.language import indefinite, name, statement
from relvlm.relworld.scene import Look, Scene
from relvlm.relworld.world import Looks, NoScene, main_looks, sample_looks, sample_predicate, sample_scene

Side = tuple[Scene, str]  # and its own caption
CATEGORIES = ("relation", "attribute", "object")
OWN = "T0_I0 > T1_I0 & T1_I1 > T0_I1,T0_I0 > T0_I1 & T1_I1 > T1_I0"  # VisMin's words for each caption with its image
CROSSED = "T1_I0 > T0_I0 & T0_I1 > T1_I1,T0_I1 > T0_I0 & T1_I0 > T1_I1"
_TRIES = 60  # of each wanted row


def write_cola(bank: Bank, folder: Path) -> None:
    """`multi_object.json`: the colours of two things exchanged, in relations of their own."""
    folder.mkdir(parents=True)
    rows = []
    for first, second in _colour_swaps(bank, "cola", same=False):
        ends = [[f"images/{bank.add(scene)}.jpg", indefinite(text)] for scene, text in (first, second)]
        rows.append([*ends[0], *ends[1]])
    (folder / "multi_object.json").write_text(json.dumps(rows, indent=1))


def write_colorswap(bank: Bank, folder: Path) -> None:
    """`test.json`: the colours of two things exchanged, in the same relation."""
    folder.mkdir(parents=True)
    rows = []
    for n, (first, second) in enumerate(_colour_swaps(bank, "colorswap", same=True)):
        images = [f"{bank.add(scene)}.jpg" for scene, _ in (first, second)]
        captions = {"caption_1": first[1], "caption_2": second[1]}
        sources = {"image_source": "relworld", "caption_source": "relworld"}
        rows.append({"id": n, **captions, "image_1": images[0], "image_2": images[1], **sources})
    (folder / "test.json").write_text(json.dumps(rows, indent=1))


def write_vismin(bank: Bank, folder: Path) -> None:
    """`benchmark.jsonl`, captions in any order, and the solution that says which is whose."""
    folder.mkdir(parents=True)
    rng, rows, solution = bank.rng("vismin"), list[Row](), ["idx,Text,Image,category"]
    for n in range(_count(bank.config)):
        category = CATEGORIES[n % len(CATEGORIES)]
        sides = _minimal_pair(bank.config, rng, category)
        images, crossed = [f"{bank.add(scene)}.jpg" for scene, _ in sides], rng.random() < 0.5
        texts = [text for _, text in sides][:: -1 if crossed else 1]
        shown = {"image_0": images[0], "text_0": texts[0], "image_1": images[1], "text_1": texts[1]}
        rows.append({"id": n, **shown, "category": category})
        solution.append(f"{n},{CROSSED if crossed else OWN},{category}")
    (folder / "benchmark.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "sim_solution.csv").write_text("\n".join(solution) + "\n")


def _count(config: WorldConfig) -> int:
    return max(12, config.benchmark_pairs // 20)


def _colour_swaps(bank: Bank, stream: str, same: bool) -> list[tuple[Side, Side]]:
    rng, config = bank.rng(stream), bank.config

    def one() -> tuple[Side, Side] | None:
        first, second = looks = sample_looks(config, rng, 2)
        if first.colour == second.colour or first.shape == second.shape:
            return None
        predicate = sample_predicate(config, rng)
        exchanged = (_with_colour(first, second.colour), _with_colour(second, first.colour))
        try:
            other = predicate if same else sample_predicate(config, rng)
            return _side(config, rng, looks, predicate), _side(config, rng, exchanged, other)
        except NoScene:
            return None

    return collect(_count(config), _TRIES * _count(config), one)


def _with_colour(look: Look, colour: str) -> Look:
    return Look(look.shape, colour, look.texture)


def _side(config: WorldConfig, rng: Random, looks: Looks, predicate: str) -> Side:
    """A scene of these two things alone, and what it shows."""
    scene = sample_scene(config, rng, training=False, predicate=predicate, looks=looks)
    return scene, statement(name(looks[0]), predicate, name(looks[1]))


def _minimal_pair(config: WorldConfig, rng: Random, category: str) -> tuple[Side, Side]:
    """Two scenes whose statements differ by the relation, or by a colour or the shape of the subject."""
    if category == "relation":
        a, first, b, second = twins(config, rng, config.predicates)
        ends = [name(look) for look in main_looks(a)[:2]]
        return (a, statement(ends[0], first, ends[1])), (b, statement(ends[0], second, ends[1]))
    for _ in range(_TRIES):
        looks, predicate = sample_looks(config, rng, 2), sample_predicate(config, rng)
        old = looks[0]
        colours = [c for c in config.colour_names if c != old.colour]
        shapes = [s for s in config.shape_names if s != old.shape]
        new = _with_colour(old, rng.choice(colours))
        if category == "object":
            new = Look(rng.choice(shapes), old.colour, old.texture)
        if new.kind == looks[1].kind:
            continue
        try:
            return _side(config, rng, looks, predicate), _side(config, rng, (new, looks[1]), predicate)
        except NoScene:
            continue
    raise NoScene(f"no minimal pair of {category} after {_TRIES} tries")
