"""RelVLM as a Matcher: what it tells of itself, and which texts it cuts."""

import pytest
import torch
from PIL import Image

from relvlm.data.batches.transforms import eval_transform
from relvlm.evals.scoring.relvlm_matcher import RelVLMMatcher
from relvlm.evals.scoring.weights import weights_hash
from relvlm.model import RelVLM


def matcher(model: RelVLM, max_words: int = 40, max_tokens: int = 0, sep: bool | None = None) -> RelVLMMatcher:
    return RelVLMMatcher(model, model.tokenizer, max_words, max_tokens, sep)


def test_its_protocol_is_the_models_unless_it_is_told_otherwise(model: RelVLM) -> None:
    wanted = {"image_size": 32, "max_words": 40, "max_tokens": 64, "sep": True}
    assert matcher(model).protocol() == wanted
    assert matcher(model, 3, 9, False).protocol() == wanted | {"max_words": 3, "max_tokens": 9, "sep": False}
    model.sep = False
    assert matcher(model).protocol()["sep"] is False
    assert matcher(model, sep=True).protocol()["sep"] is True


def test_images_are_made_ready_at_the_models_size(model: RelVLM) -> None:
    image = Image.new("RGB", (10, 20), (200, 0, 0))
    assert torch.equal(matcher(model).transform(image), eval_transform(32)(image))
    assert matcher(model).transform_name == "square bicubic 32"


def test_it_has_features_and_gives_probabilities(model: RelVLM) -> None:
    assert matcher(model).has_features and matcher(model).probabilities
    assert matcher(model).fingerprint() == weights_hash(model)


@pytest.mark.parametrize(
    ("text", "max_words", "max_tokens", "cut"),
    [
        ("a dog on the left", 5, 0, False),
        ("a dog on the left", 4, 0, True),
        ("a dog on the left", 5, 7, False),  # with [CLS] and [SEP]
        ("a dog on the left", 5, 6, True),
    ],
)
def test_texts_that_are_cut_are_remembered(
    model: RelVLM, text: str, max_words: int, max_tokens: int, cut: bool
) -> None:
    made = matcher(model, max_words, max_tokens)
    (tokens,) = made.encode_text([text])
    assert made.truncated == ({text} if cut else set())
    assert len(tokens) == (6 if cut else 7)


def test_a_text_is_encoded_as_it_is_alone(model: RelVLM) -> None:
    made = matcher(model)
    with torch.no_grad():
        together = made.encode_text(["a dog", "the red box is left"])
        (alone,) = made.encode_text(["the red box is left"])
    assert [len(tokens) for tokens in together] == [4, 7]
    torch.testing.assert_close(together[1], alone)


def test_pairs_are_matched_by_their_places(model: RelVLM) -> None:
    made = matcher(model)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        images = made.encode_image(torch.randn(2, 3, 32, 32, generator=generator) * 9)
        texts = made.encode_text(["a dog", "the red box is left"])
        both = made.match(images, texts, torch.tensor([1, 0]), torch.tensor([0, 1]))
        (first,) = made.match(images[1:], texts[:1], torch.tensor([0]), torch.tensor([0]))
        features = made.text_features(texts)
        wanted = model.text_features(torch.stack([texts[0][0], texts[1][0]])[:, None])
    assert both.shape == (2, 2)
    torch.testing.assert_close(both[0], first)
    torch.testing.assert_close(features, wanted)
    torch.testing.assert_close(made.image_features(images), model.image_features(images))


def test_it_is_moved_in_eval_mode(model: RelVLM) -> None:
    model.train()
    made = matcher(model)
    made.move(torch.device("cpu"))
    assert not model.training and made.device == torch.device("cpu")
