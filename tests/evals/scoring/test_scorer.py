"""The scorer's packed batches against one pair at a time; encodings cached by content; memory that is bounded."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.closeness import assert_as_close_as
from support.redness import Redness
from torch import nn

from relvlm.config.schema import FusionConfig, ModelConfig, TextConfig
from relvlm.config.vision import ViTConfig
from relvlm.data.batches.transforms import eval_transform
from relvlm.data.text import Tokenizer, pre_caption
from relvlm.errors import UserError
from relvlm.evals.scoring import scorer
from relvlm.evals.scoring.photos import Photo
from relvlm.evals.scoring.scorer import ScoreOptions, Scorer
from relvlm.model import RelVLM

WORDS = ["a", "dog", "cat", "left", "right", "of", "the", "red", "blue", "box", "sits", "under", "over", "on", "is"]
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
def test_packed_scores_equal_one_by_one(tokenizer: Tokenizer, images: list[Path], options: ScoreOptions) -> None:
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
    Scorer(model, tokenizer).match_logits(images, TEXTS, torch.tensor([0, 1, 2, 3]), torch.tensor([0, 1, 2, 2]))
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


@pytest.fixture()
def colours(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, colour in (("red", (250, 0, 0)), ("blue", (0, 0, 250)), ("green", (0, 250, 0))):
        Image.new("RGB", (20, 10), colour).save(folder / f"{name}.png")
    return folder


def cached(folder: Path, model: nn.Module | None = None, **options: object) -> tuple[Redness, Scorer]:
    model = model or Redness()
    return model, Scorer(model, None, ScoreOptions(cache=folder, **options))  # type: ignore[arg-type, return-value]


def test_images_are_encoded_once_for_all_processes_that_share_a_cache(colours: Path, tmp_path: Path) -> None:
    names = [colours / "red.png", colours / "blue.png"]
    first, scorer = cached(tmp_path / "cache")
    wanted = scorer.probabilities(names, ["red"] * 2)
    (colours / "copy.png").write_bytes((colours / "red.png").read_bytes())
    second, scorer = cached(tmp_path / "cache")
    found = scorer.probabilities([colours / "copy.png", names[1]], ["red"] * 2)
    assert (first.encoded.count("image"), second.encoded.count("image")) == (2, 0)
    assert scorer.cache is not None and scorer.cache.hits == 2
    assert found.tolist() == wanted.tolist()


def test_other_weights_or_dtype_do_not_read_the_cache(colours: Path, tmp_path: Path) -> None:
    cached(tmp_path / "cache")[1].probabilities([colours / "red.png"], ["red"])
    changed = Redness()
    with torch.no_grad():
        changed.weight.mul_(2)
    for other in (cached(tmp_path / "cache", changed), cached(tmp_path / "cache", dtype="bf16")):
        other[1].scores([colours / "red.png"], ["red"])
        assert other[0].encoded.count("image") == 1


def test_a_damaged_cache_file_is_encoded_again(colours: Path, tmp_path: Path) -> None:
    cached(tmp_path / "cache")[1].probabilities([colours / "red.png"], ["red"])
    (file,) = (tmp_path / "cache").rglob("*.safetensors")
    file.write_bytes(b"torn")
    again, scorer = cached(tmp_path / "cache")
    scorer.probabilities([colours / "red.png"], ["red"])
    assert again.encoded.count("image") == 1


def test_no_more_is_held_than_memory_allows(colours: Path) -> None:
    names = sorted(colours.iterdir())
    model = Redness()
    scorer = Scorer(model, None, ScoreOptions(memory_gb=0, image_batch=1))
    few = scorer.probabilities(names * 2, ["red"] * 6)
    assert len(scorer._images) == 1
    assert few.tolist() == Scorer(Redness()).probabilities(names * 2, ["red"] * 6).tolist()


def test_bf16_is_near_fp32(model, suite: Path) -> None:
    paths, texts = [suite / "images" / f"{i}.jpg" for i in range(4)], ["a dog", "the red box", "a", "left of"]
    exact = Scorer(model, model.tokenizer).probabilities(paths, texts)
    rounded = Scorer(model, model.tokenizer, ScoreOptions(dtype="bf16")).probabilities(paths, texts)
    assert exact.tolist() != rounded.tolist()
    torch.testing.assert_close(exact, rounded, atol=0.02, rtol=0)


def test_memory_holds_the_latest_and_a_batch_at_least(colours: Path) -> None:
    made = Scorer(Redness(), None, ScoreOptions(image_batch=1, memory_gb=2 * 12 / 2**30))  # two of three floats
    made.encoded(sorted(colours.iterdir()))
    assert [photo.path.name for photo in made._images] == ["green.png", "red.png"]
    assert made._bytes == 24
    few = Scorer(Redness(), None, ScoreOptions(image_batch=3, memory_gb=0))
    few.encoded(sorted(colours.iterdir()))
    assert len(few._images) == 3


@pytest.mark.parametrize(("memory", "encoded"), [(384, 17), (382, 16), (192, 16), (190, 8)])
def test_images_are_encoded_ahead_while_half_of_the_memory_is_free(colours: Path, memory: int, encoded: int) -> None:
    model = Redness()  # 12 bytes an image; 8 batches are taken at once
    made = Scorer(model, None, ScoreOptions(image_batch=1, memory_gb=memory / 2**30))
    made._encode_ahead([Photo(colours / "red.png", (0, 0, i + 1, 1)) for i in range(17)])
    assert model.encoded.count("image") == encoded


def test_defaults_suit_a_cpu_and_the_protocol() -> None:
    options = ScoreOptions()
    assert (options.max_words, options.max_tokens, options.image_batch, options.memory_gb) == (40, 0, 32, 8)
    assert options.max_pixels == 178_956_970 and 1 <= options.decode_threads <= 8
    assert Scorer(Redness()).token_budget == 2048
    assert Scorer(Redness(), None, ScoreOptions(token_budget=7)).token_budget == 7


@pytest.mark.parametrize(("rank", "share"), [(0, [0, 1]), (1, [2, 3]), (2, [4, 5, 6])])
def test_processes_share_everything_once(rank: int, share: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scorer, "world_size", lambda: 3)
    monkeypatch.setattr(scorer, "rank", lambda: rank)
    assert list(range(7))[scorer._share(7)] == share


def test_similarities_are_told_from_probabilities(colours: Path) -> None:
    model = Redness()
    names = [colours / "red.png"]
    wanted = Scorer(model).match_logits(names, ["red"], torch.tensor([0]), torch.tensor([0]))
    scores, are_probabilities = Scorer(model).scores(names, ["red"])
    assert are_probabilities and scores.tolist() == pytest.approx(wanted.softmax(-1)[:, 1].tolist())
    model.match = lambda images, texts, image, text: images[image, 0]  # type: ignore[method-assign]
    scores, are_probabilities = Scorer(model).scores(names, ["red"])
    assert not are_probabilities and scores.shape == (1,)
    with pytest.raises(UserError, match="gives similarities"):
        Scorer(model).probabilities(names, ["red"])


def test_no_pair_at_all_gives_no_score(colours: Path) -> None:
    none, scorer = torch.empty(0, dtype=torch.long), Scorer(Redness())
    assert scorer._match(scorer.matcher.match, [], [], none, none).shape == (0, 2)
