"""The matrix equals one pair at a time by the model's own methods."""

from pathlib import Path

import pytest
import torch
from PIL import Image

import relvlm
from relvlm.data.batches.transforms import eval_transform
from relvlm.errors import UserError
from relvlm.explain.reading import encode
from relvlm.library.score import score
from relvlm.model import RelVLM

TEXTS = ["a man riding a horse", "dogs", "a red cart left of the men", "dogs"]


def alone(model: RelVLM, path: Path, text: str) -> float:
    with torch.no_grad():
        tokens = model.encode_image(eval_transform(32)(Image.open(path))[None])
        text_tokens, mask = encode(model, [text])
        return model.match_logits(model.fuse(text_tokens, mask, tokens)).softmax(-1)[0, 1].item()


def test_each_cell_is_its_pair(model: RelVLM, photos: list[Path]) -> None:
    found = score(model, photos, TEXTS)
    expected = torch.tensor([[alone(model, path, text) for text in TEXTS] for path in photos])
    assert found.shape == (6, 4)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert found.std() > 1e-4 and (found[:, 1] == found[:, 3]).all()


def test_it_is_there_by_its_name(model: RelVLM, photos: list[Path]) -> None:
    assert relvlm.score(model, [str(path) for path in photos[:2]], TEXTS[:1]).shape == (2, 1)


def test_nothing_to_score_is_an_empty_matrix(model: RelVLM, photos: list[Path]) -> None:
    assert score(model, [], TEXTS).shape == (0, 4) and score(model, photos, []).shape == (6, 0)


@pytest.mark.parametrize(("words", "fits"), [(10, True), (11, False)])
def test_a_text_is_taken_whole_or_not_at_all(model: RelVLM, photos: list[Path], words: int, fits: bool) -> None:
    texts = ["a man", "man " * words]
    if fits:
        assert score(model, photos, texts).shape == (6, 2)
    else:
        with pytest.raises(UserError, match="longer than the model has positions for"):
            score(model, photos, texts)


@pytest.mark.parametrize("text", ["", " ", "?!"])
def test_a_text_without_words_is_refused(model: RelVLM, photos: list[Path], text: str) -> None:
    with pytest.raises(UserError, match="has no word"):
        score(model, photos, ["a man", text])


def test_a_damaged_photo_is_named(model: RelVLM, photos: list[Path]) -> None:
    photos[3].write_bytes(b"no image")
    with pytest.raises(UserError, match=r"3\.png: not a readable image.*leave it out\)"):
        score(model, photos, TEXTS)
    photos[4].write_bytes(b"no image")
    with pytest.raises(UserError, match="2 such photos in all"):
        score(model, photos, TEXTS)


def test_a_diverged_model_is_refused(model: RelVLM, photos: list[Path]) -> None:
    torch.nn.init.constant_(next(model.itm_head.parameters()), torch.nan)
    with pytest.raises(UserError, match="scores: not finite"):
        score(model, photos, TEXTS)
