"""RefCOCO files of the world: an expression means one thing, whose box is given."""

import json
from collections.abc import Mapping
from pathlib import Path

from relvlm.evals.tasks import refcoco
from relvlm.relworld.scene import Scene


def test_each_expression_has_the_box_of_the_thing_that_it_names(folder: Path, shown: Mapping[int, Scene]) -> None:
    pairs = refcoco.load(folder / "refcoco").pairs
    assert {p.row["piece"] for p in pairs} == {"refcoco_val", "refcocog_val"}
    related = 0
    for pair in pairs:
        scene = shown[int(pair.image.removesuffix(".jpg"))]
        colour, shape, *rest = pair.text.split()
        (thing,) = (t for t in scene.things if t.look.kind == (colour, shape))
        assert pair.row["target"] == list(thing.box) and pair.row["size"] == [scene.size] * 2
        related += bool(rest)
    assert related > len(pairs) // 4


def test_it_is_in_the_layout_of_cocos_files(folder: Path) -> None:
    tree = json.loads((folder / "refcoco/finetune_refcoco_val.json").read_text())
    assert [i["id"] for i in tree["images"]] == [a["image_id"] for a in tree["annotations"]]
    assert {"file_name", "height", "width", "caption", "original_id", "dataset_name"} <= tree["images"][0].keys()
