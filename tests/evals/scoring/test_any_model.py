"""What a model may have beside three methods, and what stands in for what it lacks."""

from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

from relvlm.data.batches.transforms import eval_transform
from relvlm.errors import UserError
from relvlm.evals.scoring.any_model import AnyModel


class Plain:
    def encode_image(self, pixels):
        return pixels.mean((2, 3))

    def encode_text(self, texts):
        return [torch.tensor([len(text)]) for text in texts]

    def match(self, images, texts, image, text):
        return images[image, 0] + torch.cat(list(texts))[text]


class Features(Plain):
    def image_features(self, rows):
        return rows * 2

    def text_features(self, texts):
        return torch.cat(list(texts)) * 3


def having(**attributes: Any) -> AnyModel:
    return AnyModel(type("Own", (Plain,), attributes)())


RED = Image.new("RGB", (10, 20), (200, 0, 0))


def test_the_three_methods_are_the_models_own() -> None:
    model = AnyModel(Plain())
    images = model.encode_image(torch.ones(2, 3, 4, 4) * 5)
    texts = model.encode_text(["a", "bcd"])
    assert model.match(images, texts, torch.tensor([0, 1]), torch.tensor([1, 0])).tolist() == [8, 6]


@pytest.mark.parametrize(("attributes", "size"), [({}, 224), ({"image_size": 8}, 8)])
def test_images_are_made_ready_by_the_common_protocol(attributes: dict, size: int) -> None:
    model = having(**attributes)
    assert torch.equal(model.transform(RED), eval_transform(size)(RED))
    assert model.transform_name == f"square bicubic {size}"


def test_a_transform_of_its_own_is_used_and_needs_a_name_for_the_cache() -> None:
    model = having(transform=lambda self, image: torch.zeros(3, 1, 1))
    assert model.transform(RED).shape == (3, 1, 1)
    with pytest.raises(UserError, match="transform without transform_name"):
        _ = model.transform_name
    assert having(transform=lambda self, image: None, transform_name="zeros").transform_name == "zeros"


def test_a_fingerprint_is_its_own_or_of_its_weights() -> None:
    assert having(fingerprint=lambda self: 7).fingerprint() == "7"
    with pytest.raises(UserError, match=r"no fingerprint\(\) names its weights"):
        having().fingerprint()
    module = type("Module", (Plain, nn.Linear), {})(2, 2)
    assert len(AnyModel(module).fingerprint()) == 64


def test_its_protocol_is_told() -> None:
    assert having().protocol() == {}
    assert having(protocol=lambda self: {"model": "x"}).protocol() == {"model": "x"}


def test_its_cut_texts_and_kind_of_scores_are_told() -> None:
    assert (having().probabilities, having().truncated) == (True, set())
    own = having(probabilities=False, truncated={"a"})
    assert (own.probabilities, own.truncated) == (False, {"a"})


def test_features_are_its_own_or_absent() -> None:
    model = AnyModel(Features())
    assert model.has_features and not AnyModel(Plain()).has_features
    assert model.image_features(torch.ones(1)).tolist() == [2]
    assert model.text_features([torch.ones(1)]).tolist() == [3]
    with pytest.raises(UserError, match="image_features, text_features: absent"):
        AnyModel(Plain()).image_features(torch.ones(1))
    assert not having(image_features=lambda self, rows: rows).has_features


def test_what_can_be_moved_is_moved_and_put_into_eval_mode() -> None:
    module = type("Module", (Plain, nn.Linear), {})(2, 2)
    AnyModel(module).move(torch.device("meta"))
    assert module.weight.device.type == "meta" and not module.training
    calls: list[object] = []
    own = having(to=lambda self, device: calls.append(device), eval=lambda self: calls.append("eval"))
    own.move(torch.device("cpu"))
    assert calls == [torch.device("cpu"), "eval"]
    having().move(torch.device("cpu"))
