"""VALSE and SugarCrepe files: one image, a true sentence and its foil."""

from __future__ import annotations

import json
import logging
from collections import Counter
from pathlib import Path
from random import Random

from relvlm.relworld import counting, foils
from relvlm.relworld.bank import Bank, Row, collect, pair_looks
from relvlm.relworld.config import WorldConfig
from relvlm.relworld.foils import Maker
from relvlm.relworld.scene import Scene
from relvlm.relworld.world import NoScene, sample_predicate, sample_scene

_log = logging.getLogger(__name__)
_ATTEMPTS = 60  # calls of a maker per wanted row
_FROM_POOL = 10  # of them, those on the pool's scenes

VALSE: dict[str, tuple[str, Maker]] = {  # file: (linguistic phenomenon, maker)
    "existence": ("existence", counting.existence),
    "plurals": ("plurals", counting.plurals),
    "counting-hard": ("counting", counting.counting_hard),
    "counting-small-quant": ("counting", counting.counting_small),
    "counting-adversarial": ("counting", counting.counting_adversarial),
    "relations": ("relations", foils.relations),
    "action-replacement": ("actions", foils.action_replacement),
    "actant-swap": ("actions", foils.actant_swap),
    "foil-it": ("noun phrases", foils.foil_it),
}
SUGARCREPE: dict[str, Maker] = {
    "add_att": foils.add_att,
    "add_obj": foils.add_obj,
    "replace_att": foils.replace_att,
    "replace_obj": foils.replace_obj,
    "replace_rel": foils.replace_rel,
    "swap_att": foils.swap_att,
    "swap_obj": foils.swap_obj,
}


def scene_pool(bank: Bank) -> list[tuple[int, Scene]]:
    """Scenes that the foil files share; a quarter of them show a held-out main relation."""
    rng, pool = bank.rng("pool"), list[tuple[int, Scene]]()
    while len(pool) < max(40, bank.config.benchmark_pairs // 2):
        if scene := pool_scene(bank.config, rng):
            pool.append((bank.add(scene), scene))
    return pool


def pool_scene(config: WorldConfig, rng: Random) -> Scene | None:
    """One such scene; None where its demands could not be met."""
    predicate = sample_predicate(config, rng)
    looks = pair_looks(config, rng, predicate, rng.randint(config.min_objects, config.max_objects))
    try:
        return sample_scene(config, rng, training=False, predicate=predicate, looks=looks)
    except NoScene:
        return None


def foil_rows(bank: Bank, pool: list[tuple[int, Scene]], stream: str, make: Maker, balanced: bool) -> list[Row]:
    """Distinct rows of one file; if `balanced`, what is right in one row is wrong in another, as near as can be.

    Where few scenes of the pool have what the file asks for, more are drawn, and stay in the pool.
    """
    rng, seen, uses = bank.rng(stream), set[tuple[int, object, object]](), Counter[tuple[str, str]]()
    wanted = max(20, bank.config.benchmark_pairs // 5)
    tries = iter(range(_ATTEMPTS * wanted))

    def one() -> Row | None:
        fresh = pool_scene(bank.config, rng) if next(tries) >= _FROM_POOL * wanted else None
        image, scene = (None, fresh) if fresh else rng.choice(pool)
        foil = make(bank.config, scene, rng)
        if foil is None or (image, foil["caption"], foil["foil"]) in seen:
            return None
        right, wrong = str(foil["classes"]), str(foil["classes_foil"])
        if balanced and uses[right, wrong] > uses[wrong, right]:
            return None
        if image is None:
            image = bank.add(scene)
            pool.append((image, scene))
        uses[right, wrong] += 1
        seen.add((image, foil["caption"], foil["foil"]))
        return {"image": f"{image}.jpg", **foil}

    rows = collect(wanted, _ATTEMPTS * wanted, one)
    if len(rows) < wanted:
        _log.warning("%s: %d rows instead of %d: few scenes of this world have what it asks", stream, len(rows), wanted)
    return rows


def write_valse(bank: Bank, pool: list[tuple[int, Scene]], folder: Path) -> None:
    """One JSON object a piece, keyed by example; a piece that the world cannot show is left out."""
    folder.mkdir(parents=True)
    for piece, (phenomenon, make) in VALSE.items():
        rows = foil_rows(bank, pool, f"valse/{piece}", make, balanced=piece != "counting-adversarial")
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
        rows = foil_rows(bank, pool, f"sugarcrepe/{piece}", make, balanced=not piece.startswith("add"))
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
