"""Predicted boxes, and relations of two regions, against the model's own methods."""

from pathlib import Path

import pytest
import torch
from support.readers import ALBEF, LATE, SWIN, VIT, noise, reader

from relvlm.config.schema import ModelConfig
from relvlm.data.batches.transforms import eval_transform
from relvlm.explain.predictions import _corners, predicted_boxes, relation_shares
from relvlm.explain.reading import encode

LEFT, RIGHT = (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)


def test_boxes_are_those_of_the_box_head_in_corners(tmp_path: Path) -> None:
    model = reader(tmp_path)
    with torch.no_grad():
        tokens_SD = model.encode_image(eval_transform(32)(noise(0))[None])[0]
        text_tokens, mask = encode(model, ["a man", "dog"])
        expected = model.predict_boxes(model.fuse(text_tokens, mask, tokens_SD.expand(2, -1, -1)))
    for (x0, y0, x1, y1), (cx, cy, w, h) in zip(
        predicted_boxes(model, tokens_SD, ["a man", "dog"]), expected.tolist(), strict=True
    ):
        assert 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1
        assert (x0, y1) == pytest.approx((max(cx - w / 2, 0), min(cy + h / 2, 1)), abs=1e-6)


@pytest.mark.parametrize(
    ("box", "corners"),
    [
        ((0.5, 0.5, 0.5, 0.2), (0.25, 0.4, 0.75, 0.6)),
        ((0.1, 0.9, 0.4, 0.4), (0.0, 0.7, 0.3, 1.0)),
        ((1.0, 0.5, 0.0, 0.0), (0.999, 0.5, 1.0, 0.501)),
    ],
)
def test_corners_are_clipped_and_never_empty(box: tuple[float, ...], corners: tuple[float, ...]) -> None:
    assert _corners(*box) == pytest.approx(corners)


@pytest.mark.parametrize("config", [VIT, SWIN, LATE], ids=["vit", "swin", "late vision"])
def test_relations_depend_on_the_boxes(tmp_path: Path, config: ModelConfig) -> None:
    model, photo = reader(tmp_path, config), noise(0, (32, 32))
    corners = ((0.0, 0.0, 0.5, 0.5), (0.5, 0.0, 1.0, 0.5))
    shares = relation_shares(model, eval_transform(32)(photo), ["man", "dog"], corners)
    assert shares.shape == (3,) and shares.sum().item() == pytest.approx(1, abs=1e-5)
    whole = relation_shares(model, eval_transform(32)(photo), ["man", "dog"], ((0, 0, 1, 1), (0, 0, 1, 1)))
    assert (shares - whole).abs().max() > 1e-6


def test_subject_and_object_are_told_apart(tmp_path: Path) -> None:
    model, pixels = reader(tmp_path), eval_transform(32)(noise(0))
    there = relation_shares(model, pixels, ["man", "dog"], (LEFT, RIGHT))
    back = relation_shares(model, pixels, ["dog", "man"], (RIGHT, LEFT))
    assert (there - back).abs().max() > 1e-6


def test_a_model_without_heads_says_so(tmp_path: Path) -> None:
    model = reader(tmp_path, ALBEF)
    with pytest.raises(ValueError, match="no relation head"):
        relation_shares(model, eval_transform(32)(noise(0)), ["man", "dog"], (LEFT, RIGHT))
    with pytest.raises(ValueError, match="no box head"):
        predicted_boxes(model, torch.zeros(17, 16), ["man"])
