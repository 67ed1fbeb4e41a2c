"""Predicted boxes: as the library's own method gives them, each image encoded once; how boxes overlap."""

from pathlib import Path

import pytest
import torch

from relvlm.data.pictures import decode
from relvlm.errors import UserError
from relvlm.evals.scoring.boxes import overlaps, predicted_boxes
from relvlm.evals.scoring.scorer import Scorer
from relvlm.losses.bbox import corners
from relvlm.model import RelVLM

TEXTS = ["a dog", "the red box on the left", "a person", "a dog"]


def test_packed_boxes_equal_one_by_one(suite: Path, model: RelVLM) -> None:
    images = [suite / f"images/{i}.jpg" for i in (0, 1, 0, 1)]
    scorer = Scorer(model, model.tokenizer)
    found = predicted_boxes(scorer, images, TEXTS)
    for image, text, box in zip(images, TEXTS, found, strict=True):
        pixels = scorer.transform(decode(image.read_bytes(), 10**6))[None]
        ids = torch.tensor(model.tokenizer.encode([text], 64, True))
        mask = torch.ones_like(ids, dtype=torch.bool)
        with torch.no_grad():
            fused = model.fuse(model.encode_text(ids, mask), mask, model.encode_image(pixels))
            wanted = corners(model.predict_boxes(fused).double())[0]
        assert box.tolist() == pytest.approx(wanted.tolist(), abs=1e-5)


def test_each_image_is_encoded_once(suite: Path, model: RelVLM, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[int] = []
    encode = model.encode_image
    monkeypatch.setattr(model, "encode_image", lambda pixels: encoded.append(len(pixels)) or encode(pixels))
    scorer = Scorer(model, model.tokenizer)
    predicted_boxes(scorer, [suite / "images/0.jpg"] * 4, TEXTS)
    scorer.probabilities([suite / "images/0.jpg"], ["a dog"])
    assert encoded == [1]


def test_a_model_without_a_box_head_is_refused(suite: Path, model: RelVLM) -> None:
    model.box_head = None
    with pytest.raises(UserError, match="no box head"):
        predicted_boxes(Scorer(model, model.tokenizer), [suite / "images/0.jpg"], ["a dog"])
    with pytest.raises(ValueError, match="localisation is false"):
        model.box_pairs(*[torch.zeros(1)] * 5)


def test_overlaps_are_of_areas_not_of_pixels() -> None:
    assert overlaps([[0, 0, 2, 2]] * 4, [[0, 0, 2, 2], [0, 0, 1, 2], [1, 1, 3, 3], [2, 0, 4, 2]]) == pytest.approx(
        [1, 0.5, 1 / 7, 0]
    )
    assert overlaps([], []) == []
