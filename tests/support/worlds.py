"""Scenes of RelWorld, and readers of its evaluation files."""

import csv
import hashlib
import json
from pathlib import Path
from random import Random
from typing import Any

from relvlm.relworld.config import PRESETS, WorldConfig
from relvlm.relworld.scene import Scene, truth
from relvlm.relworld.world import sample_scene

FILLERS = {"a", "an", "the", "is"}
FULL, MINI = PRESETS["full"], PRESETS["mini"]
Row = dict[str, Any]
PAIRS = 200
FEWEST = 10  # rows of a piece: few scenes of the miniature show an action


def scenes(config: WorldConfig, count: int, **wanted: object) -> list[Scene]:
    rng = Random(7)
    return [sample_scene(config, rng, training=True, **wanted) for _ in range(count)]  # type: ignore[arg-type]


def vsr(folder: Path, split: str) -> list[Row]:
    return [json.loads(line) for line in (folder / "vsr" / f"{split}.jsonl").read_text().splitlines()]


def svo(folder: Path) -> list[Row]:
    with (folder / "svo" / "svo_probes.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def objects(folder: Path, kind: str) -> dict[str, dict[str, Row]]:
    return {file.stem: json.loads(file.read_text()) for file in sorted((folder / kind).glob("*.json"))}


def triplet(config: WorldConfig, sentence: str) -> tuple[str, str, str]:
    text = sentence.lower().rstrip(".").replace(" is ", " ").removeprefix("the ")
    for predicate in sorted(config.predicates, key=len, reverse=True):
        if f" {predicate} the " in text:
            subject, _, obj = text.partition(f" {predicate} the ")
            return subject, predicate, obj
    raise AssertionError(f"no predicate in {sentence!r}")


def holds(config: WorldConfig, scene: Scene, sentence: str) -> bool | None:
    """What the scene says of a statement about two of its things; False where one of them is not there."""
    subject, predicate, obj = triplet(config, sentence)
    ends = []
    for words in (subject, obj):
        fits = [i for i, t in enumerate(scene.things) if set(words.split()) <= {t.look.colour, t.look.shape}]
        ends.append(fits)
    found = {truth(scene, i, predicate, j) for i in ends[0] for j in ends[1] if i != j}
    return True if True in found else None if None in found else False


def fingerprint(made: object) -> str:
    """What is made of the same arguments has one, in every version: published worlds are named by their arguments."""
    return hashlib.blake2b(repr(made).encode(), digest_size=6).hexdigest()
