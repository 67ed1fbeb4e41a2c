"""What'sUp, SugarCrepe++, VL-CheckList and NegBench files of the world: true where they say so, and false elsewhere."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from support.worlds import FEWEST, holds

from relvlm.evals.tasks import negbench, sugarcrepe_pp, vl_checklist, whatsup
from relvlm.relworld.bank import Bank
from relvlm.relworld.choice_files import CONTROLLED, EDITS, write_whatsup
from relvlm.relworld.config import WorldConfig, world_config
from relvlm.relworld.foil_files import scene_pool
from relvlm.relworld.language import indefinite, vocabulary
from relvlm.relworld.scene import Scene


def words(text: str) -> set[str]:
    return set(text.lower().rstrip(".").split())


def test_sets_of_four_are_whole_and_each_true_caption_stands_alone(config: WorldConfig, tmp_path: Path) -> None:
    bank = Bank(config, 0)
    scenes = scene_pool(bank)
    write_whatsup(bank, scenes, tmp_path / "whatsup")
    rows = json.loads((tmp_path / "whatsup/controlled_images_dataset.json").read_text())
    by_name = {name: bank.scenes[image] for image, name in bank.names.items()}
    assert len(rows) == len(by_name) >= 4 * FEWEST // 2
    for row in rows:
        scene = by_name[row["image_path"].removeprefix("data/")]
        true, *false = row["caption_options"]
        assert len(scene.things) == 2 and len(false) == 3
        assert holds(config, scene, true) is True
        said = [holds(config, scene, text) for text in false]
        assert True not in said and False in said  # what is aside may be a hair above or below
    found = whatsup.TASK.metrics([{**p.row, "score": 1 - i % 4} for i, p in enumerate(_controlled(tmp_path))])
    assert found["A"] == found["pairs"]["A"] == found["sets"]["A"] == 100
    assert found["counts"]["sets/A"] == len(rows) / 4


def _controlled(tmp_path: Path) -> list:
    return whatsup.load(tmp_path / "whatsup/controlled_images_dataset.json").pairs


def test_pairs_of_opposites_are_true_and_false(config: WorldConfig, folder: Path, shown: Mapping[int, Scene]) -> None:
    rows = json.loads((folder / "whatsup/vg_qa_two_obj.json").read_text())
    assert len(rows) >= FEWEST
    for image, true, false in rows:
        assert holds(config, shown[image], true) is True
        assert holds(config, shown[image], false) is False


def test_a_world_without_the_four_predicates_has_no_sets(tmp_path: Path) -> None:
    few = world_config("mini", predicates=("left of", "right of", "pushing"), benchmark_pairs=40)
    bank = Bank(few, 0)
    write_whatsup(bank, scene_pool(bank), tmp_path / "whatsup")
    assert not (tmp_path / "whatsup/controlled_images_dataset.json").exists() and not bank.names
    assert set(CONTROLLED) - set(few.predicates) == {"above", "below"}


def test_other_words_say_the_same(config: WorldConfig, folder: Path, shown: Mapping[int, Scene]) -> None:
    for piece in EDITS:
        records = json.loads((folder / f"sugarcrepe_pp/{piece}.json").read_text())
        assert len(records) >= FEWEST
        for record in records:
            scene = shown[int(record["filename"].removesuffix(".jpg"))]
            assert record["caption2"] == indefinite(record["caption"]) != record["caption"]
            assert holds(config, scene, record["caption"]) is True
            assert holds(config, scene, record["negative_caption"]) is False
    assert len(sugarcrepe_pp.load(folder / "sugarcrepe_pp").examples) >= 5 * FEWEST


@pytest.mark.parametrize(
    ("stated", "other"),
    [
        ("The red circle is above the orange star.", "A red circle above an orange star."),
        ("The orange hourglass contains the blue house.", "An orange hourglass contains a blue house."),
        ("The red circle is facing away from the moon.", "A red circle facing away from a moon."),
    ],
)
def test_a_statement_in_other_words(stated: str, other: str) -> None:
    assert indefinite(stated) == other


def test_the_checklist_has_a_true_and_a_false_text(
    config: WorldConfig, folder: Path, shown: Mapping[int, Scene]
) -> None:
    for piece in ("Relation/vg/spatial", "Relation/vg/action", "Attribute/vg/color"):
        rows = json.loads((folder / f"vl_checklist/{piece}.json").read_text())
        assert len(rows) >= FEWEST
        for image, texts in rows:
            scene = shown[int(image.removesuffix(".jpg"))]
            assert holds(config, scene, texts["POS"][0]) is True
            assert holds(config, scene, texts["NEG"][0]) is False
    pieces = {p.row["piece"] for p in vl_checklist.load(folder / "vl_checklist").pairs}
    assert pieces == {"Relation_vg_spatial", "Relation_vg_action", "Attribute_vg_color"}


def _negation_is_true(scene: Scene, text: str) -> bool:
    present = [{t.look.colour, t.look.shape} for t in scene.things]
    said = text.lower().removesuffix(" in the picture.").removeprefix("there is ")
    parts = said.split(" and ")
    return all((words(part) - {"a", "an", "no"} in present) != ("no" in words(part)) for part in parts)


def test_one_of_four_captions_is_true(folder: Path, shown: Mapping[int, Scene]) -> None:
    with (folder / "negbench/relworld_mcq.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert {row["correct_answer_template"] for row in rows} == {"positive", "negative", "hybrid"}
    for row in rows:
        scene = shown[int(row["image_path"].removesuffix(".jpg"))]
        said = [_negation_is_true(scene, row[f"caption_{i}"]) for i in range(4)]
        assert said == [True, False, False, False]
        assert len({row[f"caption_{i}"] for i in range(4)}) == 4
    held = [{**p.row, "score": 1.0 - i % 4} for i, p in enumerate(negbench.load(folder / "negbench").pairs)]
    found = negbench.TASK.metrics(held)
    assert (found["overall"], found["chance"]) == (100, 25)


def test_every_word_is_in_the_vocabulary(folder: Path) -> None:
    known = set(vocabulary())
    benchmarks = (whatsup, sugarcrepe_pp, vl_checklist, negbench)
    for module in benchmarks:
        for pair in module.load(folder / module.TASK.name).pairs:
            assert words(pair.text) <= known, pair.text
