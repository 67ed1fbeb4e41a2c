"""Cosines of pairs: of the features that the library gives, each image and text encoded once."""

from pathlib import Path

import pytest
import torch

from relvlm.evals.scoring.cosines import image_text_cosines, text_cosines
from relvlm.evals.scoring.scorer import Scorer
from relvlm.model import RelVLM

TEXTS = ["a dog", "the red box", "a dog", "a person on the left"]


def test_pairs_are_of_their_own_features(suite: Path, model: RelVLM, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[int] = []
    encode = model.encode_image
    monkeypatch.setattr(model, "encode_image", lambda pixels: encoded.append(len(pixels)) or encode(pixels))
    scorer = Scorer(model, model.tokenizer)
    images = [suite / f"images/{i}.jpg" for i in (0, 1, 1, 0)]
    found = image_text_cosines(scorer, images, TEXTS)
    assert encoded == [2]
    wanted = [scorer.image_features([i])[0] @ scorer.text_features([t])[0] for i, t in zip(images, TEXTS, strict=True)]
    assert torch.allclose(found, torch.stack(wanted), atol=1e-6)


def test_texts_are_compared_in_pairs(model: RelVLM) -> None:
    scorer = Scorer(model, model.tokenizer)
    found = text_cosines(scorer, TEXTS, TEXTS[1:] + TEXTS[:1])
    features = scorer.text_features(TEXTS)
    assert torch.allclose(found, (features * features.roll(-1, 0)).sum(1), atol=1e-6)
    assert text_cosines(scorer, ["a dog"], ["a dog"]).item() == pytest.approx(1)
