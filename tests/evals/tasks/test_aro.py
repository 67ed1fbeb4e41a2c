"""ARO's rule, its crops, its macro averages, its files."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from relvlm.errors import UserError
from relvlm.evals.evaluate import evaluate, rescore
from relvlm.evals.tasks import aro
from relvlm.evals.tasks.registry import titles

BOX = {"bbox_x": 1, "bbox_y": 2, "bbox_w": 4, "bbox_h": 6}


def relation(name: str, image: str = "1.jpg") -> dict:
    texts = {"true_caption": f"the dog is {name} the box", "false_caption": f"the box is {name} the dog"}
    return {"image_id": "1", "image_path": image, "relation_name": name, **texts, **BOX}


def folder(tmp_path: Path) -> Path:
    out = tmp_path / "aro"
    out.mkdir()
    (out / "visual_genome_relation.json").write_text(json.dumps([relation("on"), relation("near")]))
    attribution = relation("x") | {"attributes": ["red", "old"], "relation_name": None}
    (out / "visual_genome_attribution.json").write_text(json.dumps([attribution]))
    order = [{"image": "a.jpg", "caption_options": ["a b c", "b a c", "c a b"]}]
    (out / "coco_order.json").write_text(json.dumps(order))
    return out


def test_all_four_files_are_read(tmp_path: Path) -> None:
    examples = aro.load(folder(tmp_path)).examples
    assert [(e[0].row["piece"], len(e)) for e in examples] == [
        ("coco_order", 3),
        ("attribution", 2),
        ("relation", 2),
        ("relation", 2),
    ]
    assert examples[1][0].row["kind"] == "red_old"
    assert [p.text for p in examples[2]] == ["the dog is on the box", "the box is on the dog"]
    assert (examples[0][0].box, examples[2][0].box) == (None, (1, 2, 5, 8))
    assert examples[3][1].row == {"label": "1_1", "piece": "relation", "kind": "near", "box": [1, 2, 5, 8]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "expected a list of examples"),
        ({"a": 1}, "expected a list of examples"),
        ([1], r"\[0\]: expected an object"),
        ([{"caption_options": ["a"]}], "image: absent"),
        ([{"image_path": "a"}], "true_caption: absent"),
    ],
)
def test_a_bad_file_is_refused(tmp_path: Path, content: object, message: str) -> None:
    (tmp_path / "order.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=message):
        aro.load(tmp_path / "order.json")


def rows(kinds: list[str], wins: list[bool], piece: str = "relation") -> list[dict]:
    return [
        {"piece": piece, "label": f"{i:02}_{option}", "kind": kind, "score": 0.5 + (won and option == 0)}
        for i, (kind, won) in enumerate(zip(kinds, wins, strict=True))
        for option in (0, 1)
    ]


def test_macro_average_is_over_the_relations_that_aro_counts() -> None:
    found = aro.TASK.metrics(rows(["on", "on", "above", "near"], [True, False, True, False]))
    assert (found["overall"], found["relation"], found["chance"]) == (50, 50, 50)
    assert found["macro_relation"] == 75  # "near" is left out
    assert "macro_relation" not in aro.TASK.metrics(rows(["near"], [True]))
    assert "macro_attribution" not in found


@pytest.mark.parametrize(("number", "macro"), [(24, 100), (25, 50)])
def test_pairs_of_attributes_count_from_25_examples_on(number: int, macro: float) -> None:
    kinds, wins = ["red_old"] * 25 + ["rare"] * number, [True] * 25 + [False] * number
    assert aro.TASK.metrics(rows(kinds, wins, "attribution"))["macro_attribution"] == macro


def test_its_derived_figures_name_the_kinds() -> None:
    found = aro.derived(aro.verdicts(rows(["on", "near", "above"], [True] * 3)))
    assert found == {"macro_relation": ("mean", ("kind/relation/on", "kind/relation/above"))}


@pytest.mark.parametrize(
    ("scores", "right"),
    [([0.5, 0.4999, 0.1], True), ([0.5, 0.5, 0.1], False), ([0.5, 0.1, 0.6], False), ([0.5, 0.1, 0.2], True)],
)
def test_a_tie_is_lost_and_every_option_must_be_beaten(scores: list[float], right: bool) -> None:
    lines = [{"piece": "order", "label": f"7_{i}", "score": score} for i, score in enumerate(scores)]
    (found,) = aro.verdicts(lines[::-1])
    assert found.marks == {"overall": right, "order": right, "kind/order/None": right}
    assert (found.card.right, found.unit) == (right, "order 7_0")


def test_a_card_shows_the_crop_the_caption_and_its_foils() -> None:
    held = rows(["on"], [True])
    for row, text in zip(held, ("true", "false"), strict=True):
        row |= {"image": "a.jpg", "text": text, "box": [1, 2, 3, 4]}
    card = aro.verdicts(held)[0].card
    assert card.lines == (("caption:", "true", 1.5), ("foil:", "false", 0.5))
    assert (card.images, card.piece, card.what, card.box) == (("a.jpg",), "relation", "on", (1, 2, 3, 4))
    bare = aro.verdicts([{"piece": "order", "label": f"0_{i}", "score": 0.1} for i in (0, 1)])[0].card
    assert (bare.what, bare.box) == ("", None)


@pytest.mark.parametrize("options", [(0,), (0, 2), (1, 2)])
def test_all_options_must_be_scored(options: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match="7 of order: not all of its options"):
        aro.verdicts([{"piece": "order", "label": f"7_{i}", "score": 0.1} for i in options])


def test_examples_of_one_number_in_two_files_are_apart() -> None:
    found = aro.verdicts(rows(["on"], [True]) + rows(["x"], [False], "attribution"))
    assert [v.unit for v in found] == ["attribution 00_0", "relation 00_0"]


class Brightness:
    """Scores a pair by the mean of the pixels that it is shown."""

    def encode_image(self, pixels):
        return pixels.mean((1, 2, 3))

    def encode_text(self, texts):
        return [torch.zeros(1) for _ in texts]

    def match(self, images, texts, image, text):
        return images[image]


def test_the_crop_is_scored_and_its_scores_give_the_metrics_again(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    picture = Image.new("RGB", (8, 8), (255, 255, 255))
    picture.paste((0, 0, 0), (1, 2, 5, 8))  # the box
    picture.save(images / "1.png")
    annotations = tmp_path / "visual_genome_relation.json"
    annotations.write_text(json.dumps([relation("on", "1.png")]))
    found = evaluate(Brightness(), None, "aro", annotations, images, tmp_path / "out")
    (first, _) = [json.loads(line) for line in (tmp_path / "out/scores.jsonl").read_text().splitlines()]
    black = torch.tensor([-1.792263, -1.752097, -1.480225]).mean().item()
    assert first["score"] == pytest.approx(black, abs=1e-4)
    again = rescore("aro", tmp_path / "out/scores.jsonl", annotations)
    assert again == {name: found[name] for name in again}


def test_scores_of_another_task_are_refused() -> None:
    with pytest.raises(UserError, match="piece: absent"):
        aro.verdicts([{"label": "0_c", "score": 0.5}])


def test_it_stands_between_vismin_and_the_checklist() -> None:
    place = titles().index("ARO")
    assert titles()[place - 1 : place + 2] == ["VisMin group", "ARO", "VL-CheckList"]


def test_chance_is_that_of_the_options_that_were_scored() -> None:
    order = [{"piece": "coco_order", "label": f"7_{i}", "score": 0.5 - i / 10} for i in range(5)]
    alone = aro.TASK.metrics(order)
    assert (alone["chance"], alone["chances"]) == (20, {"coco_order": 20})
    (cell,) = aro.TASK.cells(alone).values()
    assert cell.chance == 20
    mixed = aro.TASK.metrics(order + rows(["on"], [True]))
    assert (mixed["chance"], mixed["chances"]) == (35, {"coco_order": 20, "relation": 50})


@pytest.mark.parametrize("side", ["bbox_w", "bbox_h"])
def test_a_crop_without_width_or_height_is_named_by_its_field(side: str, tmp_path: Path) -> None:
    (tmp_path / "visual_genome_relation.json").write_text(json.dumps([relation("on") | {side: 0}]))
    with pytest.raises(UserError, match=f"{side}: 0 \\(a crop is at least a pixel"):
        aro.load(tmp_path)
