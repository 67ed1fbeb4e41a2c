"""Any object with encode_image, encode_text and match; encodings cached by content; memory that is bounded."""

import json
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from relvlm.errors import UserError
from relvlm.evals.evaluate import evaluate
from relvlm.evals.scoring.models import named_model
from relvlm.evals.scoring.photos import ImageCache, Photo
from relvlm.evals.scoring.scorer import ScoreOptions, Scorer


class Redness(nn.Module):
    """Matches red images with texts that say red; no features, no tokenizer, its own image size."""

    image_size = 8

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.encoded: list[str] = []

    def encode_image(self, pixels):
        self.encoded += ["image"] * len(pixels)
        return pixels.mean((2, 3)) * self.weight

    def encode_text(self, texts):
        self.encoded += texts
        return [torch.tensor([[float("red" in text)]]) for text in texts]

    def match(self, images, texts, image, text):
        red = images[image, 0] - images[image, 1:].mean(1)
        says = torch.stack([texts[i][0, 0] for i in text.tolist()])
        return torch.stack([torch.zeros(len(image)), red * (2 * says - 1)], dim=1)


@pytest.fixture()
def colours(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, colour in (("red", (250, 0, 0)), ("blue", (0, 0, 250)), ("green", (0, 250, 0))):
        Image.new("RGB", (20, 10), colour).save(folder / f"{name}.png")
    return folder


def winoground(folder: Path) -> Path:
    row = {"id": 0, "caption_0": "red", "caption_1": "blue", "image_0": "red.png", "image_1": "blue.png"}
    (folder / "examples.jsonl").write_text(json.dumps(row) + "\n")
    return folder / "examples.jsonl"


def test_an_object_with_the_three_methods_is_evaluated(colours: Path, tmp_path: Path) -> None:
    model = Redness()
    found = evaluate(model, None, "winoground", winoground(tmp_path), colours, tmp_path / "out")
    assert (found["text"], found["image"], found["group"]) == (100, 100, 100)
    assert sorted(model.encoded) == ["blue", "image", "image", "red"]


def test_retrieval_without_features_scores_every_pair(colours: Path, tmp_path: Path) -> None:
    gallery = [{"image": f"{name}.png", "caption": [name]} for name in ("red", "blue", "green")]
    (tmp_path / "t.json").write_text(json.dumps(gallery))
    found = evaluate(Redness(), None, "coco", tmp_path / "t.json", colours, tmp_path / "out")
    assert (found["n_pairs"], found["TR@10"]) == (9, 100)


@pytest.mark.parametrize("absent", ["encode_image", "encode_text", "match"])
def test_what_a_model_lacks_is_named(absent: str) -> None:
    methods = {name: len for name in ("encode_image", "encode_text", "match") if name != absent}
    with pytest.raises(UserError, match=f"model: {absent}: absent .*ITM head"):
        Scorer(type("Half", (), methods)())


def test_a_relvlm_without_itm_head_is_refused(model) -> None:
    model.itm_head = None
    with pytest.raises(UserError, match="itm_head: absent"):
        Scorer(model, model.tokenizer)


def test_a_model_is_found_by_module_and_callable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "somebodys_model.py").write_text("def build():\n    return 'built'\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert named_model("py:somebodys_model:build", 40) == "built"
    sys.modules.pop("somebodys_model")
    for name in ("py:somebodys_model:none", "py:no_such_module:build", "somebodys_model"):
        with pytest.raises(UserError, match="--model"):
            named_model(name, 40)


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


def test_a_crop_has_a_key_of_its_own(tmp_path: Path) -> None:
    whole, crop = Photo(tmp_path / "a"), Photo(tmp_path / "a", (0, 0, 2, 2))
    assert whole.key(b"x") != crop.key(b"x") != crop.key(b"y")
    cache = ImageCache(tmp_path, "weights")
    cache.put(whole.key(b"x"), torch.ones(2))
    assert cache.get(crop.key(b"x")) is None


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
