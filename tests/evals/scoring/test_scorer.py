"""The scorer's packed batches against one pair at a time through the padded library methods."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.closeness import assert_as_close_as

from relvlm.config.schema import FusionConfig, ModelConfig, TextConfig
from relvlm.config.vision import ViTConfig
from relvlm.data.batches.transforms import eval_transform
from relvlm.data.text import Tokenizer, pre_caption
from relvlm.errors import UserError
from relvlm.evals.scoring import scorer
from relvlm.evals.scoring.scorer import ScoreOptions, Scorer
from relvlm.model import RelVLM

WORDS = [
    "a",
    "dog",
    "cat",
    "left",
    "right",
    "of",
    "the",
    "red",
    "blue",
    "box",
    "sits",
    "under",
    "over",
    "on",
    "is",
]
TEXTS = [
    "A dog is left of the cat.",
    "the red box",
    "a cat sits under the blue box",
    "Dog!",
    "a dog on a cat",
]


def tiny_model() -> RelVLM:
    torch.manual_seed(0)
    config = ModelConfig(
        image_size=16,
        embed_dim=8,
        vision=ViTConfig(width=16, layers=1, heads=2, patch_size=8),
        text=TextConfig(width=16, layers=1, heads=2, max_positions=32),
        fusion=FusionConfig(layers=2, heads=2),
    )
    model = RelVLM(config, len(WORDS) + 5, 0 if not config.relations else 3)
    with torch.no_grad():  # larger than at initialisation, so that pairs differ visibly
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(8)
    return model.eval()


@pytest.fixture()
def tokenizer(tmp_path: Path) -> Tokenizer:
    vocab = tmp_path / "vocab.txt"
    vocab.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]))
    return Tokenizer(vocab)


@pytest.fixture()
def images(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{i}.png" for i in range(4)]
    for i, path in enumerate(paths):
        Image.fromarray(rng.integers(0, 255, (20 + i, 24, 3), dtype=np.uint8)).save(path)
    return paths


class Counting:
    """Counts the images that a model encodes, keeps the words of its texts."""

    def __init__(self, model: RelVLM) -> None:
        self.images, self.words = 0, list[list[int]]()
        encode_image, encode_text = model.encode_image, model.encode_text_packed

        def count_images(pixels: torch.Tensor) -> torch.Tensor:
            self.images += len(pixels)
            return encode_image(pixels)

        def count_texts(ids: torch.Tensor, cu: torch.Tensor) -> torch.Tensor:
            self.words += [text.tolist() for text in ids.tensor_split(cu[1:-1].long())]
            return encode_text(ids, cu)

        model.encode_image, model.encode_text_packed = count_images, count_texts  # type: ignore[method-assign]


def one_by_one(model: RelVLM, tokenizer: Tokenizer, image: Path, text: str) -> torch.Tensor:
    pixels = eval_transform(16)(Image.open(image).convert("RGB"))[None]
    ids = torch.tensor(tokenizer.encode([pre_caption(text, 40)], 32, True))
    mask = torch.ones_like(ids, dtype=torch.bool)
    with torch.no_grad():
        fused = model.fuse(model.encode_text(ids, mask), mask, model.encode_image(pixels))
        return model.match_logits(fused).softmax(-1)[0, 1]


def all_pairs(images: list[Path]) -> tuple[list[Path], list[str]]:
    return [p for p in images for _ in TEXTS], TEXTS * len(images)


@pytest.mark.parametrize("options", [ScoreOptions(), ScoreOptions(token_budget=12, image_batch=2)])
def test_packed_scores_equal_one_by_one(
    tokenizer: Tokenizer, images: list[Path], options: ScoreOptions
) -> None:
    model = tiny_model()
    paths, texts = all_pairs(images)
    found = Scorer(model, tokenizer, options).probabilities(paths, texts)
    plain, truth = (
        torch.stack([one_by_one(each, tokenizer, p, t) for p, t in zip(paths, texts, strict=True)])
        for each in (model, copy.deepcopy(model).double())
    )
    assert plain.max() - plain.min() > 0.01, "pairs too alike for the test to mean anything"
    assert_as_close_as(found, plain, truth)


def test_each_image_and_text_is_encoded_once(tokenizer: Tokenizer, images: list[Path]) -> None:
    model = tiny_model()
    counts = Counting(model)
    made = Scorer(model, tokenizer, ScoreOptions(token_budget=12, image_batch=2))
    paths, texts = all_pairs(images)
    made.probabilities(paths, texts)
    made.probabilities(paths[::-1], texts)
    assert (counts.images, len(counts.words)) == (len(images), len(TEXTS))


def test_each_process_encodes_its_own_images_and_texts(
    tokenizer: Tokenizer, images: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scorer, "world_size", lambda: 2)
    monkeypatch.setattr(scorer, "rank", lambda: 1)
    monkeypatch.setattr(scorer, "gather_objects", lambda value: [value])
    model = tiny_model()
    counts = Counting(model)
    Scorer(model, tokenizer).match_logits(
        images, TEXTS, torch.tensor([0, 1, 2, 3]), torch.tensor([0, 1, 2, 2])
    )
    assert (counts.images, len(counts.words)) == (2, 1)


def test_features_are_those_of_the_library_methods(tokenizer: Tokenizer, images: list[Path]) -> None:
    model = tiny_model()
    made = Scorer(model, tokenizer, ScoreOptions(image_batch=3))
    pixels = torch.stack([eval_transform(16)(Image.open(p).convert("RGB")) for p in images])
    with torch.no_grad():
        plain, truth = (
            each.image_features(each.encode_image(pixels)) for each in (model, copy.deepcopy(model).double())
        )
    assert_as_close_as(made.image_features(images), plain, truth)
    torch.testing.assert_close(made.text_features(TEXTS).norm(dim=-1), torch.ones(len(TEXTS)))


def test_fusion_batches_stay_within_their_bounds(tokenizer: Tokenizer, images: list[Path]) -> None:
    model = tiny_model()
    seen = []
    match_pairs = model.match_pairs

    def watch(images_BSD, text_TD, cu, image_index, text_index):  # type: ignore[no-untyped-def]
        lengths = (cu[1:] - cu[:-1])[text_index]
        seen.append((len(images_BSD), int(lengths.sum()), len(text_index)))
        return match_pairs(images_BSD, text_TD, cu, image_index, text_index)

    model.match_pairs = watch  # type: ignore[method-assign]
    Scorer(model, tokenizer, ScoreOptions(token_budget=20, image_batch=2)).probabilities(*all_pairs(images))
    assert sum(pairs for _, _, pairs in seen) == len(images) * len(TEXTS)
    assert all(number <= 2 and tokens <= 20 for number, tokens, _ in seen)


def test_long_texts_are_cut_and_counted(tokenizer: Tokenizer, images: list[Path]) -> None:
    model = tiny_model()
    counts = Counting(model)
    made = Scorer(model, tokenizer, ScoreOptions(max_words=3))
    texts = ["a dog sits", "a dog sits on the box"]
    made.probabilities([images[0]] * 2, texts)
    assert counts.words == [tokenizer.encode(["a dog sits"], 32, True)[0]] * 2
    assert made.cut(texts) == 1


def test_corrupt_image_is_named(tokenizer: Tokenizer, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"not an image")
    with pytest.raises(UserError, match=r"bad\.jpg"):
        Scorer(tiny_model(), tokenizer).probabilities([bad], ["a dog"])


def test_model_without_match_head_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(UserError, match="ITM head"):
        Scorer(torch.nn.Linear(1, 1), tokenizer)
