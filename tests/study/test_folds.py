"""Folds of real photographs: each photo held out once, and never among those it is trained with."""

import json
from dataclasses import replace

import pytest
from PIL import Image

from relvlm.data.shards.store import ShardSet
from relvlm.errors import UserError
from relvlm.study.folds import build_folds
from relvlm.study.plan import Folds

COUNT = 7
LEFT, RIGHT, FAR_RIGHT = [5, 20, 20, 30], [40, 20, 20, 30], [70, 20, 20, 30]  # x, y, width, height


@pytest.fixture
def photos(tmp_path):
    """Photographs with a dog left of a cat; in the first another dog stands right of it."""
    (tmp_path / "photos").mkdir()
    images = [{"id": 10 + i, "file_name": f"{10 + i:012}.jpg", "width": 100, "height": 80} for i in range(COUNT)]
    for image in images:
        Image.new("RGB", (100, 80), (image["id"], 0, 0)).save(tmp_path / "photos" / image["file_name"])
    captions = [{"id": i, "image_id": image["id"], "caption": f"dog {i}"} for i, image in enumerate(images)]
    things = [(image["id"], *thing) for image in images for thing in ((LEFT, 1), (RIGHT, 2))]
    boxes = [
        {"id": i, "image_id": image, "bbox": box, "category_id": category, "iscrowd": 0, "area": 600}
        for i, (image, box, category) in enumerate([*things, (10, FAR_RIGHT, 1)])
    ]
    categories = [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}]
    files = {
        "captions": {"images": images, "annotations": captions},
        "instances": {"images": images, "annotations": boxes, "categories": categories},
        "sugarcrepe_swap_obj": {
            str(i): {"filename": image["file_name"], "caption": "a", "negative_caption": "b"}
            for i, image in enumerate(images)
        },
        "sugarcrepe_add_att": {"0": {"filename": images[0]["file_name"], "caption": "a", "negative_caption": "b"}},
    }
    for name, content in files.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    here = str(tmp_path)
    return Folds(f"{here}/folds", f"{here}/photos", f"{here}/captions.json", f"{here}/instances.json", here, count=2)


@pytest.fixture
def folds(plan, photos, tmp_path):
    build_folds(replace(plan, folds=[photos], seeds=[0, 1]))
    return [tmp_path / "folds" / f"fold_{i}" for i in (0, 1)]


def test_a_photo_is_held_out_once_and_trains_the_other_folds(folds):
    held = [set((fold / "held_out.txt").read_text().split()) for fold in folds]
    assert not held[0] & held[1] and len(held[0] | held[1]) == COUNT
    for fold, out in zip(folds, held, strict=True):
        shards = ShardSet(fold / "graphs")
        trained = {f"{int(shards.read(i).sample.image_id):012}.jpg" for i in range(len(shards))}
        assert not trained & out and len(trained | out) == COUNT


def test_benchmarks_are_about_held_out_photos_alone(folds):
    for fold in folds:
        held, suite = set((fold / "held_out.txt").read_text().split()), fold / "benchmarks"
        gallery = json.loads((suite / "coco/karpathy.json").read_text())["images"]
        rows = json.loads((suite / "sugarcrepe/sugarcrepe_swap_obj.json").read_text()).values()
        assert {image["filename"] for image in gallery} == {row["filename"] for row in rows} == held
        assert all((suite / "images" / name).is_file() for name in held)


def test_a_kind_of_which_a_fold_has_no_rows_has_no_file_there(folds):
    there = [(fold / "benchmarks/sugarcrepe/sugarcrepe_add_att.json").exists() for fold in folds]
    assert sorted(there) == [False, True]


def test_nor_has_a_fold_without_questions(plan, photos, tmp_path):
    build_folds(replace(plan, folds=[replace(photos, count=COUNT)], seeds=list(range(COUNT))))
    asked = [fold for fold in (tmp_path / "folds").glob("fold_*") if (fold / "benchmarks/choice").exists()]
    assert len(asked) == COUNT - 1  # the photo with two dogs answers none


def test_questions_are_those_that_all_boxes_answer_alike(folds):
    lines = [line for fold in folds for line in (fold / "benchmarks/choice/left_of.jsonl").read_text().splitlines()]
    questions = [json.loads(line) for line in lines]
    assert len(questions) == COUNT - 1 and f"{10:012}.jpg" not in {question["image"] for question in questions}
    assert {question["options"][question["answer"]] for question in questions} == {"dog left of cat"}
    assert {question["options"][1 - question["answer"]] for question in questions} == {"cat left of dog"}
    assert {question["answer"] for question in questions} == {0, 1}


def test_a_seed_has_a_fold(plan, photos):
    with pytest.raises(UserError, match=r"seeds: \[3, 5\]: folds are numbered from 0 to 1"):
        build_folds(replace(plan, folds=[photos]))


def test_fewer_seeds_do_not_cut_otherwise_and_another_cut_is_refused(plan, photos, folds, tmp_path):
    held = (folds[0] / "held_out.txt").read_text()
    other = replace(photos, path=str(tmp_path / "one"))
    build_folds(replace(plan, folds=[other], seeds=[0]))
    assert (tmp_path / "one/fold_0/held_out.txt").read_text() == held
    with pytest.raises(UserError, match=r"one/folds.json: made otherwise than the plan says \(remove"):
        build_folds(replace(plan, folds=[replace(other, count=3)], seeds=[0]))


def test_absent_sugarcrepe_files_are_named_before_anything_is_built(plan, photos, tmp_path):
    with pytest.raises(UserError, match=r"gone: holds no sugarcrepe_\*.json \(give folds.sugarcrepe"):
        build_folds(replace(plan, folds=[replace(photos, sugarcrepe=str(tmp_path / "gone"))], seeds=[0, 1]))
    assert not (tmp_path / "folds").exists()
