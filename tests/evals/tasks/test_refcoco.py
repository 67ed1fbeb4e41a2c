"""RefCOCO: the threshold, MDETR's files, boxes by the model's head."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from relvlm.errors import UserError
from relvlm.evals.evaluate import evaluate, evaluate_suite, rescore
from relvlm.evals.reporting.browser import Pictures, records_of
from relvlm.evals.results import cards_of
from relvlm.evals.tasks import refcoco
from relvlm.model import RelVLM

IMAGE = {"file_name": "a.png", "height": 40, "width": 80, "id": 3, "original_id": 9, "caption": "left one"}


def written(path: Path, images: list[dict], boxes: list[dict]) -> Path:
    path.write_text(json.dumps({"images": images, "annotations": boxes}))
    return path


@pytest.mark.parametrize(("overlap", "right"), [(0.4999, False), (0.5, True), (0.5001, True)])
def test_half_of_the_union_is_enough(overlap: float, right: bool) -> None:
    (found,) = refcoco.verdicts([{"label": "1", "piece": "refcoco_val", "score": overlap}])
    assert found.marks == {"overall": right, "refcoco_val": right}
    assert found.unit == "refcoco_val 1"


@pytest.mark.parametrize(("width", "right"), [(3.99, False), (4, True)])
def test_the_whole_photo_is_the_answer_to_beat(width: float, right: bool) -> None:
    row = {"label": "1", "piece": "refcoco_val", "score": 0, "target": [0, 0, width, 8], "size": [8, 8]}
    found = refcoco.TASK.metrics([row])
    assert (found["whole_photo"], found["overall"], found["chance"]) == (100 * right, 0, None)
    (cell,) = refcoco.TASK.cells(found).values()
    assert cell.chance == 100 * right


def test_a_split_is_read_with_its_boxes(tmp_path: Path) -> None:
    other = IMAGE | {"id": 4, "caption": "right one"}
    boxes = [{"id": 1, "image_id": 4, "bbox": [10, 0, 20.5, 30]}, {"id": 2, "image_id": 3, "bbox": [1, 2, 3, 4]}]
    written(tmp_path / "finetune_refcoco+_testA.json", [IMAGE, other], boxes)
    written(tmp_path / "finetune_refcoco+_train.json", [IMAGE], boxes[1:])
    first, second = (e[0] for e in refcoco.load(tmp_path).examples)
    assert (first.image, first.text) == ("a.png", "left one")
    assert first.row == {"label": "3", "piece": "refcoco+_testA", "target": [1, 2, 4, 6], "size": [80, 40]}
    assert second.row["target"] == [10, 0, 30.5, 30]
    assert len(refcoco.load(tmp_path / "finetune_refcoco+_train.json").examples) == 1


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ({"image_id": 3, "bbox": [1, 2, 0, 4]}, "bbox: 0.0 x 4.0"),
        ({"image_id": 3, "bbox": [1, 2, 3]}, "bbox: .* is no list of 4 numbers"),
        ({"image_id": 3, "bbox": [1, 2, 3, float("nan")]}, "is no list of 4 numbers"),
        ({"image_id": 5, "bbox": [1, 2, 3, 4]}, "id: 3 has no box"),
        ({"bbox": [1, 2, 3, 4]}, "image_id: absent"),
    ],
)
def test_a_bad_box_is_named(tmp_path: Path, box: dict, message: str) -> None:
    with pytest.raises(UserError, match=rf"finetune_refcoco_val\.json: .*{message}"):
        refcoco.load(written(tmp_path / "finetune_refcoco_val.json", [IMAGE], [box]))


def test_an_expression_has_one_box(tmp_path: Path) -> None:
    box = {"image_id": 3, "bbox": [1, 2, 3, 4]}
    with pytest.raises(UserError, match="image_id: 3 has a second box"):
        refcoco.load(written(tmp_path / "finetune_refcoco_val.json", [IMAGE], [box, box]))


class Boxes:
    """Answers with one box for "left" and another for everything else, and counts what it encodes."""

    encoded = 0

    def encode_image(self, pixels: torch.Tensor) -> torch.Tensor:
        type(self).encoded += len(pixels)
        return pixels.mean((2, 3))

    def encode_text(self, texts):
        return [torch.tensor([float("left" in text)]) for text in texts]

    def match(self, images, texts, image, text):
        return torch.zeros(len(image))

    def boxes(self, images, texts, image, text):
        return torch.tensor([[0.25, 0.5, 0.5, 1.0] if texts[i] else [0.75, 0.5, 0.5, 1.0] for i in text.tolist()])


def test_boxes_are_of_the_photos_own_pixels_and_each_photo_is_encoded_once(tmp_path: Path) -> None:
    Image.new("RGB", (80, 40)).save(tmp_path / "a.png")
    images = [IMAGE, IMAGE | {"id": 4, "caption": "other one"}, IMAGE | {"id": 5, "caption": "left, too"}]
    boxes = {3: [0, 0, 40, 40], 4: [40, 0, 40, 20], 5: [40, 0, 40, 40]}
    annotations = [{"image_id": i, "bbox": box} for i, box in boxes.items()]
    path = written(tmp_path / "finetune_refcoco_val.json", images, annotations)
    found = evaluate(Boxes(), None, "refcoco", path, tmp_path, tmp_path / "out")
    held = [json.loads(line) for line in (tmp_path / "out/scores.jsonl").read_text().splitlines()]
    assert [row["score"] for row in held] == pytest.approx([1, 0.5, 0])
    assert held[1]["predicted"] == [40, 0, 80, 40]
    assert (found["overall"], found["whole_photo"], Boxes.encoded) == (
        pytest.approx(200 / 3),
        pytest.approx(200 / 3),
        1,
    )
    assert found["score"] == "intersection over union"
    again = rescore("refcoco", tmp_path / "out/scores.jsonl", path)
    assert again == {name: found[name] for name in again}
    marks = cards_of(tmp_path / "out")[1].marks
    assert marks == (("true", (0.5, 0.0, 1.0, 0.5)), ("predicted", (0.5, 0.0, 1.0, 1.0)))
    (shown,) = [e for e in records_of("model", [tmp_path / "out"], Pictures(), 0) if "other" in e["lines"][0][1]]
    assert shown["marks"] == marks


def test_a_model_without_a_box_head_is_refused_and_its_suite_goes_on(
    tmp_path: Path, suite: Path, model: RelVLM, caplog: pytest.LogCaptureFixture
) -> None:
    (suite / "refcoco").mkdir()
    image = IMAGE | {"file_name": "1.jpg", "width": 32, "height": 32}
    written(suite / "refcoco/finetune_refcoco_val.json", [image], [{"image_id": 3, "bbox": [0, 0, 16, 32]}])
    found = evaluate_suite(model, model.tokenizer, suite, tmp_path / "with")
    assert found["refcoco"]["n"] == 1
    model.box_head = None
    with pytest.raises(UserError, match="model: no box head: refcoco needs it"):
        evaluate(model, model.tokenizer, "refcoco", suite / "refcoco", suite / "images", tmp_path / "alone")
    assert "refcoco" not in evaluate_suite(model, model.tokenizer, suite, tmp_path / "without")
    assert "refcoco: left out, the model has no box head" in caplog.text
