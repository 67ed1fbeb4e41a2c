"""What'sUp, SugarCrepe++, VL-CheckList and NegBench files: one image, and texts of which one (or two) are true."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from random import Random

from relvlm.relworld import foils
from relvlm.relworld.bank import Bank, Row, collect, false_predicates, open_facts
from relvlm.relworld.config import WorldConfig, all_kinds, is_held_out
from relvlm.relworld.foil_files import SUGARCREPE, foil_rows
from relvlm.relworld.foils import Maker
from relvlm.relworld.language import article, fact_statement, indefinite, name, statement
from relvlm.relworld.lexicon import PREDICATES
from relvlm.relworld.scene import Scene, truth
from relvlm.relworld.world import Looks, NoScene, sample_background, sample_looks, sample_scene

Pool = list[tuple[int, Scene]]
# Of a set of four: the predicate, and how What'sUp's names of photos spell it.
CONTROLLED = {"left of": "left_of", "right of": "right_of", "above": "on", "below": "under"}
EDITS = ("replace_att", "replace_obj", "replace_rel", "swap_att", "swap_obj")
CHECKLIST: dict[str, Maker] = {
    "Relation/vg/spatial": foils.relations,
    "Relation/vg/action": foils.action_replacement,
    "Attribute/vg/color": foils.replace_att,
}
NEGBENCH_COLUMNS = ("image_path", "correct_answer", *(f"caption_{i}" for i in range(4)), "correct_answer_template")
TYPES = ("positive", "negative", "hybrid")
_TRIES = 200


def write_whatsup(bank: Bank, pool: Pool, folder: Path) -> None:
    """A: sets of four pictures of the same two things; and GQA's form, of the pool's scenes."""
    folder.mkdir(parents=True)
    rng, wanted = bank.rng("whatsup"), max(5, bank.config.benchmark_pairs // 20)
    rows = [row for four in _sets(bank.config, rng, wanted) for row in _set_rows(bank, four)]
    if rows:
        (folder / "controlled_images_dataset.json").write_text(json.dumps(rows, indent=1))
    seen: set[tuple[int, str]] = set()

    def one() -> list[object] | None:
        image, scene = rng.choice(pool)
        found = open_facts(bank.config, scene, tuple(CONTROLLED))
        fact = rng.choice(found) if found else None
        wrong = PREDICATES[fact[1]].inverse if fact else None
        if not fact or wrong not in false_predicates(scene, fact, tuple(CONTROLLED)):
            return None
        true, false = fact_statement(scene, fact), fact_statement(scene, (fact[0], str(wrong), fact[2]))
        if (image, true) in seen:
            return None
        seen.add((image, true))
        return [image, true, false]

    two = collect(2 * wanted, 60 * wanted, one)
    (folder / "vg_qa_two_obj.json").write_text(json.dumps(two, indent=1))


def _sets(config: WorldConfig, rng: Random, wanted: int) -> list[dict[str, Scene]]:
    """Four scenes of each two looks, by predicate; none where the world lacks one of the predicates."""
    if not set(CONTROLLED) <= set(config.predicates):
        return []
    seen: set[frozenset[str]] = set()

    def one() -> dict[str, Scene] | None:
        looks = sample_looks(config, rng, 2)
        names = frozenset(name(look) for look in looks)
        four = None if names in seen else _four(config, rng, looks)
        if four:
            seen.add(names)
        return four

    return collect(wanted, _TRIES, one)


def _four(config: WorldConfig, rng: Random, looks: Looks) -> dict[str, Scene] | None:
    """None where one is not clear: of the four predicates its own alone holds, and its opposite clearly does not."""
    ground = sample_background(config, rng)
    found: dict[str, Scene] = {}
    for predicate in CONTROLLED:
        try:
            scene = sample_scene(config, rng, training=False, predicate=predicate, looks=looks, background=ground)
        except NoScene:
            return None
        i, _, j = scene.main
        said = {other: truth(scene, i, other, j) for other in CONTROLLED if other != predicate}
        if True in said.values() or said[str(PREDICATES[predicate].inverse)] is not False:
            return None
        found[predicate] = scene
    return found


def _set_rows(bank: Bank, four: dict[str, Scene]) -> list[Row]:
    rows = []
    for predicate, scene in four.items():
        i, _, j = scene.main
        first, second = scene.things[i].look, scene.things[j].look
        texts = [statement(name(first), p, name(second)) for p in (predicate, *(p for p in four if p != predicate))]
        ends = (name(look).replace(" ", "-") for look in (first, second))
        file = f"controlled_images/{f'_{CONTROLLED[predicate]}_'.join(ends)}.jpeg"
        bank.add(scene, file)
        held_out = is_held_out(bank.config, first.kind, predicate, second.kind)
        rows.append({"image_path": f"data/{file}", "caption_options": texts, "held_out": held_out})
    return rows


def write_sugarcrepe_pp(bank: Bank, pool: Pool, folder: Path) -> None:
    """Five files: a caption, the same in other words, a negative caption."""
    folder.mkdir(parents=True)
    for piece in EDITS:
        rows = foil_rows(bank, pool, f"sugarcrepe_pp/{piece}", SUGARCREPE[piece], balanced=True)
        records = [
            {
                "id": n,
                "filename": row["image"],
                "caption": row["caption"],
                "caption2": indefinite(row["caption"]),
                "negative_caption": row["foil"],
                "held_out": row["held_out"],
            }
            for n, row in enumerate(rows)
        ]
        if records:
            (folder / f"{piece}.json").write_text(json.dumps(records, indent=1))


def write_vl_checklist(bank: Bank, pool: Pool, folder: Path) -> None:
    """Lists of [image, {"POS", "NEG"}] in the official folders."""
    for piece, make in CHECKLIST.items():
        rows = foil_rows(bank, pool, f"vl_checklist/{piece}", make, balanced=True)
        if rows:
            path = folder / f"{piece}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            records = [[row["image"], {"POS": [row["caption"]], "NEG": [row["foil"]]}] for row in rows]
            path.write_text(json.dumps(records, indent=1))


def write_negbench(bank: Bank, pool: Pool, folder: Path) -> None:
    """`relworld_mcq.csv`: the true caption first, of each type in turn."""
    folder.mkdir(parents=True)
    rng, wanted = bank.rng("negbench"), max(21, bank.config.benchmark_pairs // 5)
    rows: list[Row] = []
    for n in range(wanted):
        image, scene = rng.choice(pool)
        rows.append(_negbench_row(bank.config, rng, f"{image}.jpg", scene, TYPES[n % len(TYPES)]))
    with (folder / "relworld_mcq.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, NEGBENCH_COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


def _negbench_row(config: WorldConfig, rng: Random, image: str, scene: Scene, kind: str) -> Row:
    present = [name(thing.look) for thing in scene.things]
    there = rng.choice(present)
    absent = rng.choice([" ".join(k) for k in all_kinds(config) if " ".join(k) not in present])
    wrong = _negated(absent, there)
    captions = [_negated(there, absent)[kind], wrong["hybrid"], wrong["positive"], wrong["negative"]]
    named = {f"caption_{i}": caption for i, caption in enumerate(captions)}
    return {"image_path": image, "correct_answer": 0, **named, "correct_answer_template": kind}


def _negated(there: str, absent: str) -> dict[str, str]:
    """What is true where one thing is there and another is not, by type."""
    return {
        "positive": f"There is {article(there)} in the picture.",
        "negative": f"There is no {absent} in the picture.",
        "hybrid": f"There is {article(there)} and no {absent} in the picture.",
    }
