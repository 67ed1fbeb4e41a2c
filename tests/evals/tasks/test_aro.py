"""ARO's files, its crops and its macro averages."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from relvlm.errors import UserError
from relvlm.evals.run import evaluate, rescore
from relvlm.evals.tasks import aro

BOX = {"bbox_x": 0, "bbox_y": 2, "bbox_w": 4, "bbox_h": 6}


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
    assert examples[2][0].text == "the dog is on the box"
    assert (examples[0][0].box, examples[2][0].box) == (None, (0, 2, 4, 8))


def rows(kinds: list[str], wins: list[bool], piece: str = "relation") -> list[dict]:
    return [
        {"piece": piece, "label": f"{i}_{option}", "kind": kind, "score": 0.5 + (won and option == 0)}
        for i, (kind, won) in enumerate(zip(kinds, wins, strict=True))
        for option in (0, 1)
    ]


def test_macro_average_is_over_the_relations_that_aro_counts() -> None:
    found = aro.metrics(rows(["on", "on", "above", "near"], [True, False, True, False]))
    assert (found["overall"], found["relation"]) == (50, 50)
    assert found["macro_relation"] == 75  # "near" is left out


def test_rare_pairs_of_attributes_are_left_out_of_the_macro_average() -> None:
    kinds, wins = ["red_old"] * 25 + ["rare"] * 5, [True] * 25 + [False] * 5
    assert aro.metrics(rows(kinds, wins, "attribution"))["macro_attribution"] == 100


def test_a_tie_is_lost_and_every_option_must_be_beaten() -> None:
    scores = {"tie": [0.5, 0.5, 0.1], "second": [0.5, 0.1, 0.6], "won": [0.5, 0.1, 0.2]}
    lines = [
        {"piece": "coco_order", "label": f"{name}_{i}", "score": score}
        for name, options in scores.items()
        for i, score in enumerate(options)
    ]
    assert aro.metrics(lines)["overall"] == pytest.approx(100 / 3)


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
    picture.paste((0, 0, 0), (0, 2, 4, 8))  # the box
    picture.save(images / "1.png")
    annotations = tmp_path / "visual_genome_relation.json"
    annotations.write_text(json.dumps([relation("on", "1.png")]))
    found = evaluate(Brightness(), None, "aro", annotations, images, tmp_path / "out")
    (first, _) = [json.loads(line) for line in (tmp_path / "out/scores.jsonl").read_text().splitlines()]
    black = torch.tensor([-1.792263, -1.752097, -1.480225]).mean().item()
    assert first["score"] == pytest.approx(black, abs=1e-4)
    again = rescore("aro", tmp_path / "out/scores.jsonl", annotations)
    assert again == {name: found[name] for name in again}


def test_a_file_of_another_task_is_refused(shared: Path) -> None:
    with pytest.raises(UserError, match="this is no ARO file"):
        aro.load(shared / "data/benchmarks/sugarcrepe/add_att.json")
    with pytest.raises(UserError, match="another task"):
        rescore("aro", shared / "reference/outputs/valse_albef_4m.jsonl")
