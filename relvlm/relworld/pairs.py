"""VSR and SVO-Probes files: one caption, two images, right in one of them."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from random import Random

from relvlm.relworld.bank import Bank, Row, pair_looks, twins
from relvlm.relworld.config import WorldConfig, is_held_out
from relvlm.relworld.language import name, statement
from relvlm.relworld.lexicon import PREDICATES
from relvlm.relworld.scene import Look, Scene
from relvlm.relworld.world import NoScene, main_looks, sample_looks, sample_predicate, sample_scene

SVO_COLUMNS = (
    "sentence",
    "pos_triplet",
    "neg_triplet",
    "pos_url",
    "neg_url",
    "pos_image_id",
    "neg_image_id",
    "subj_neg",
    "verb_neg",
    "obj_neg",
)
_BUCKETS = ("verb_neg", "subj_neg", "verb_neg", "obj_neg")
_TRIES = 200
Triplet = tuple[Look, str, Look]


def vsr_rows(bank: Bank, split: str, count: int) -> list[Row]:
    """`count` rows in fours: two captions over two images, so neither caption nor image alone tells the label."""
    rng = bank.rng(f"vsr/{split}")
    predicates = tuple(p for p in bank.config.predicates if PREDICATES[p].vsr)
    rows: list[Row] = []
    while len(rows) < count:
        a, first, b, second = twins(bank.config, rng, predicates)
        looks = main_looks(a)
        images = [bank.add(a), bank.add(b)]
        for k, predicate in enumerate((first, second)):
            for n, image in enumerate(images):
                rows.append(_vsr_row(bank.config, image, (looks[0], predicate, looks[1]), int(n == k)))
    return rows[:count]


def _vsr_row(config: WorldConfig, image: int, triplet: Triplet, label: int) -> Row:
    subject, predicate, obj = triplet
    return {
        "image": f"{image}.jpg",
        "image_link": f"images/{image}.jpg",
        "caption": statement(name(subject), predicate, name(obj)),
        "label": label,
        "relation": predicate,
        "annotator_id": 0,
        "vote_true_validator_id": [0] * label,
        "vote_false_validator_id": [0] * (1 - label),
        "subj": name(subject),
        "obj": name(obj),
        "held_out": is_held_out(config, subject.kind, predicate, obj.kind),
    }


def write_vsr(bank: Bank, folder: Path) -> None:
    """`dev.jsonl` and `test.jsonl`."""
    folder.mkdir(parents=True)
    total = bank.config.benchmark_pairs
    for split, count in (("dev", total // 2), ("test", total)):
        lines = [json.dumps(row) + "\n" for row in vsr_rows(bank, split, -(-count // 4) * 4)]
        (folder / f"{split}.jsonl").write_text("".join(lines))


def _substitute(config: WorldConfig, rng: Random, end: int) -> tuple[Scene, Triplet, Scene, Triplet]:
    """Two scenes of one predicate whose subjects (end 0) or objects (end 1) differ; neither shows the other's."""
    for _ in range(_TRIES):
        predicate = sample_predicate(config, rng)
        count = rng.randint(config.min_objects, config.max_objects)
        looks = pair_looks(config, rng, predicate, count)
        others = list(looks)
        others[end] = sample_looks(config, rng, 1, avoid=looks)[0]
        try:
            a = sample_scene(config, rng, training=False, predicate=predicate, looks=looks)
            b = sample_scene(config, rng, training=False, predicate=predicate, looks=tuple(others))
        except NoScene:
            continue
        return a, (looks[0], predicate, looks[1]), b, (others[0], predicate, others[1])
    raise NoScene(f"no pair of scenes after {_TRIES} tries")


def _svo_scenes(config: WorldConfig, rng: Random, bucket: str) -> tuple[Scene, Triplet, Scene, Triplet]:
    if bucket != "verb_neg":
        return _substitute(config, rng, 0 if bucket == "subj_neg" else 1)
    pool = config.actions if len(config.actions) > 1 and rng.random() < 0.6 else config.predicates
    a, first, b, second = twins(config, rng, pool)
    subject, obj = main_looks(a)[:2]
    return a, (subject, first, obj), b, (subject, second, obj)


def _svo_row(config: WorldConfig, positive: tuple[int, Triplet], negative: tuple[int, Triplet], bucket: str) -> Row:
    (image, triplet), (other_image, other) = positive, negative
    subject, predicate, obj = triplet
    return {
        "sentence": statement(name(subject), predicate, name(obj)),
        "pos_triplet": ",".join((name(subject), predicate, name(obj))),
        "neg_triplet": ",".join((name(other[0]), other[1], name(other[2]))),
        "pos_url": f"images/{image}.jpg",
        "neg_url": f"images/{other_image}.jpg",
        "pos_image_id": image,
        "neg_image_id": other_image,
        **{column: column == bucket for column in SVO_COLUMNS[-3:]},
        "held_out": is_held_out(config, subject.kind, predicate, obj.kind),
    }


def svo_rows(bank: Bank, count: int) -> list[Row]:
    """`count` rows in twos: each image of a pair is right once and wrong once. Half of them change the verb."""
    rng = bank.rng("svo")
    rows: list[Row] = []
    while len(rows) < count:
        bucket = _BUCKETS[len(rows) // 2 % len(_BUCKETS)]
        a, first, b, second = _svo_scenes(bank.config, rng, bucket)
        ends = (bank.add(a), first), (bank.add(b), second)
        rows.append(_svo_row(bank.config, ends[0], ends[1], bucket))
        rows.append(_svo_row(bank.config, ends[1], ends[0], bucket))
    return rows[:count]


def write_svo(bank: Bank, folder: Path) -> None:
    """`svo_probes.csv` in the official columns, and `held_out` after them."""
    folder.mkdir(parents=True)
    with (folder / "svo_probes.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, [*SVO_COLUMNS, "held_out"])
        writer.writeheader()
        writer.writerows(svo_rows(bank, round(0.6 * bank.config.benchmark_pairs / 2) * 2))
