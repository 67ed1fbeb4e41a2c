"""RefCOCO files of the world: an expression means one thing, whose box is given."""

import json
from pathlib import Path

from support.worlds import PAIRS

from relvlm.evals.tasks import refcoco
from relvlm.relworld.bank import Bank
from relvlm.relworld.config import WorldConfig
from relvlm.relworld.foil_files import scene_pool
from relvlm.relworld.pairs import svo_rows, vsr_rows


def test_each_expression_has_the_box_of_the_thing_that_it_names(config: WorldConfig, folder: Path) -> None:
    bank = Bank(config, 0)
    vsr_rows(bank, "dev", PAIRS // 2), vsr_rows(bank, "test", PAIRS)
    svo_rows(bank, round(0.6 * PAIRS / 2) * 2)
    pool = dict(scene_pool(bank))
    pairs = refcoco.load(folder / "refcoco").pairs
    assert {p.row["piece"] for p in pairs} == {"refcoco_val", "refcocog_val"}
    related = 0
    for pair in pairs:
        scene = pool[int(pair.image.removesuffix(".jpg"))]
        colour, shape, *rest = pair.text.split()
        (thing,) = (t for t in scene.things if t.look.kind == (colour, shape))
        assert pair.row["target"] == list(thing.box) and pair.row["size"] == [scene.size] * 2
        related += bool(rest)
    assert related > len(pairs) // 4


def test_it_is_in_the_layout_of_cocos_files(folder: Path) -> None:
    tree = json.loads((folder / "refcoco/finetune_refcoco_val.json").read_text())
    assert [i["id"] for i in tree["images"]] == [a["image_id"] for a in tree["annotations"]]
    assert {"file_name", "height", "width", "caption", "original_id", "dataset_name"} <= tree["images"][0].keys()
