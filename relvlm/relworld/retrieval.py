"""Stanford Paragraphs and COCO (Karpathy) files: which text belongs to which image?"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from random import Random

from relvlm.relworld.bank import Bank, Row
from relvlm.relworld.config import Kind, WorldConfig
from relvlm.relworld.language import caption, paragraph
from relvlm.relworld.lexicon import PREDICATES
from relvlm.relworld.scene import Fact, Scene, fact_held_out, facts
from relvlm.relworld.world import main_looks, sample_scene

_MOST_FACTS = 5
_CAPTIONS = 5
KindFact = tuple[Kind, str, Kind]


def _kind_facts(scene: Scene, chosen: Iterable[Fact]) -> frozenset[KindFact]:
    return frozenset((scene.things[i].look.kind, p, scene.things[j].look.kind) for i, p, j in chosen)


def _mentioned(config: WorldConfig, scene: Scene, rng: Random) -> list[Fact]:
    """Up to five facts, actions first, without the mirror image of one that is there already."""
    known = list(facts(config, scene))
    rng.shuffle(known)
    known.sort(key=lambda fact: not PREDICATES[fact[1]].action)
    chosen: list[Fact] = []
    for i, predicate, j in known:
        if (j, PREDICATES[predicate].inverse, i) not in chosen:
            chosen.append((i, predicate, j))
    return chosen[:_MOST_FACTS]


class _Distinct:
    """Scenes whose paragraphs are true of no other scene kept so far, nor theirs of them."""

    def __init__(self, config: WorldConfig) -> None:
        self.config = config
        self.kept: dict[frozenset[Kind], list[tuple[frozenset[KindFact], frozenset[KindFact]]]] = {}

    def keep(self, scene: Scene, mentioned: list[Fact]) -> bool:
        """Whether the scene was distinct, in which case it is kept."""
        said, true = _kind_facts(scene, mentioned), _kind_facts(scene, facts(self.config, scene))
        rivals = self.kept.setdefault(frozenset(t.look.kind for t in scene.things), [])
        if not said or any(said <= other_true or other_said <= true for other_said, other_true in rivals):
            return False
        rivals.append((said, true))
        return True


def _paragraphs(bank: Bank, split: str, count: int) -> list[Row]:
    """As many in a row as `paragraph_siblings` says share their things: relations alone tell these apart."""
    rng, config = bank.rng(f"paragraphs/{split}"), bank.config
    distinct, rows, looks = _Distinct(config), list[Row](), None
    for _ in range(40 * count):
        if len(rows) == count:
            break
        scene = sample_scene(config, rng, training=False, looks=looks)
        mentioned = _mentioned(config, scene, rng)
        if not distinct.keep(scene, mentioned):
            continue
        image_id = bank.add(scene)
        rows.append(
            {
                "image_id": image_id,
                "url": f"images/{image_id}.jpg",
                "paragraph": paragraph(scene, config, rng, mentioned),
                "held_out": any(fact_held_out(config, scene, fact) for fact in mentioned),
            }
        )
        looks = main_looks(scene) if len(rows) % config.paragraph_siblings else None
    return rows


def write_paragraphs(bank: Bank, folder: Path) -> None:
    """`paragraphs_v1.json`, `val_split.json`, `test_split.json`."""
    folder.mkdir(parents=True)
    total = bank.config.benchmark_pairs
    splits = {"val": total // 10, "test": max(total // 4, min(200, total))}
    rows = {split: _paragraphs(bank, split, count) for split, count in splits.items()}
    (folder / "paragraphs_v1.json").write_text(json.dumps([*rows["val"], *rows["test"]], indent=1))
    for split, part in rows.items():
        (folder / f"{split}_split.json").write_text(json.dumps([row["image_id"] for row in part]))


def _sentence(raw: str, image: int, number: int) -> Row:
    tokens = "".join(c if c.isalnum() or c == " " else " " for c in raw.lower()).split()
    return {"tokens": tokens, "raw": raw, "imgid": image, "sentid": number}


def _captions(config: WorldConfig, scene: Scene, rng: Random) -> list[str]:
    """Five captions, all true and mostly complete."""
    return [caption(scene, config, rng, noise=0, drop=0.1) for _ in range(_CAPTIONS)]


def write_coco(bank: Bank, folder: Path) -> None:
    """`karpathy.json`, the layout of Karpathy's dataset_coco.json, with the splits val and test."""
    folder.mkdir(parents=True)
    rng, config, images = bank.rng("coco"), bank.config, list[Row]()
    counts = {"val": config.benchmark_pairs // 10, "test": config.benchmark_pairs // 5}
    for split in (split for split, count in counts.items() for _ in range(count)):
        scene = sample_scene(config, rng, training=False)
        image_id, number = bank.add(scene), len(images)
        sentences = [
            _sentence(raw, number, _CAPTIONS * number + k) for k, raw in enumerate(_captions(config, scene, rng))
        ]
        images.append(
            {
                "filepath": "images",
                "filename": f"{image_id}.jpg",
                "split": split,
                "cocoid": image_id,
                "imgid": number,
                "sentids": [s["sentid"] for s in sentences],
                "sentences": sentences,
            }
        )
    (folder / "karpathy.json").write_text(json.dumps({"images": images, "dataset": "relworld"}, indent=1))
