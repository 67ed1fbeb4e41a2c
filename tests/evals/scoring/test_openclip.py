"""A dual encoder as open_clip gives it, through the Matcher protocol: its stand-in, and a tiny one of its own."""

import json
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from relvlm.errors import UserError
from relvlm.evals.scoring.models import as_matcher, named_model
from relvlm.evals.scoring.openclip import OpenClipMatcher, load
from relvlm.evals.scoring.scorer import ScoreOptions, Scorer

TAGS = {"ViT-B-32": ["openai", "laion2b"], "five": [*"abcde"], "six": [*"abcdef"]}
CONTEXT, START, END = 8, 30, 31
TEXTS = ["a red box", "A dog, on the box!", "the dog"]


class Tiny(torch.nn.Module):
    """The parts of open_clip's CLIP that are asked for."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.context_length, self.visual = CONTEXT, SimpleNamespace(image_size=(6, 6))
        self.image, self.words = torch.nn.Linear(3 * 36, 5), torch.nn.Embedding(32, 5)

    def encode_image(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.image(pixels.flatten(1))

    def encode_text(self, ids: torch.Tensor) -> torch.Tensor:
        assert ids.shape[1] == self.context_length
        return self.words(ids).sum(1)


def tokenizer(texts: list[str], context_length: int = CONTEXT) -> torch.Tensor:
    """As open_clip's: padded with 0, cut with the end kept."""
    rows = torch.zeros(len(texts), context_length, dtype=torch.long)
    for row, text in zip(rows, texts, strict=True):
        ids = [START, *(len(word) for word in text.split()), END][:context_length]
        row[: len(ids)] = torch.tensor([*ids[:-1], END])
    return rows


def transform(image: Image.Image) -> torch.Tensor:
    return torch.tensor(np.asarray(image.convert("RGB").resize((6, 6)), dtype=np.float32)).permute(2, 0, 1) / 255


@pytest.fixture
def open_clip(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module with open_clip's names; `created` says what was asked of it."""
    module = ModuleType("open_clip")
    module.created = []

    def create(name: str, pretrained: str | None = None) -> tuple:
        module.created.append((name, pretrained))
        if pretrained == "unknown":
            raise RuntimeError("Unknown pretrained tag 'unknown'")
        return Tiny(), None, transform

    module.create_model_and_transforms = create
    module.get_tokenizer = lambda name: tokenizer
    module.list_pretrained_tags_by_model = lambda name: TAGS.get(name, [])
    monkeypatch.setitem(sys.modules, "open_clip", module)
    return module


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    rng, paths = np.random.default_rng(0), [tmp_path / f"{i}.png" for i in range(3)]
    for path in paths:
        Image.fromarray(rng.integers(0, 255, (9, 7, 3), dtype=np.uint8)).save(path)
    return paths


def grid(photos: list[Path]) -> tuple[list[Path], list[str]]:
    return [p for p in photos for _ in TEXTS], TEXTS * len(photos)


def test_a_score_is_the_cosine_of_its_features(open_clip, photos):
    found, are_probabilities = Scorer(named_model("open_clip:ViT-B-32:openai", 40)).scores(*grid(photos))
    model, clean = Tiny(), ["a red box", "a dog on the box", "the dog"]
    with torch.no_grad():
        images = model.encode_image(torch.stack([transform(Image.open(p)) for p in photos]))
        wanted = torch.cosine_similarity(images[:, None], model.encode_text(tokenizer(clean))[None], dim=-1)
    torch.testing.assert_close(found, wanted.flatten())
    assert not are_probabilities and wanted.std() > 0.01
    assert open_clip.created == [("ViT-B-32", "openai")]


@pytest.mark.parametrize(
    ("name", "created"),
    [
        ("ViT-B-32:/some/file.pt", ("ViT-B-32", "/some/file.pt")),
        ("hf-hub:laion/CLIP-x", ("hf-hub:laion/CLIP-x", None)),
        ("local-dir:models/x", ("local-dir:models/x", None)),
    ],
)
def test_weights_are_named_by_a_tag_a_file_or_the_name_itself(name, created, open_clip):
    matcher = load(name)
    assert open_clip.created == [created]
    assert as_matcher(matcher, None, 40, 0, None) is matcher
    protocol = {"open_clip": name, "image_size": 6, "max_words": 40, "max_tokens": CONTEXT}
    assert matcher.protocol() == protocol


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ViT-B-32", "no weights named (give open_clip:ViT-B-32:TAG, of openai, laion2b)"),
        ("five", "no weights named (give open_clip:five:TAG, of a, b, c, d, e)"),
        ("six", "no weights named (give open_clip:six:TAG, of a, b, c, d, e, ...)"),
        ("mine:", "no weights named (give open_clip:mine:TAG, of a file of weights)"),
        ("ViT-B-32:unknown", "Unknown pretrained tag 'unknown'"),
    ],
)
def test_a_model_without_weights_is_refused(name, message, open_clip):
    with pytest.raises(UserError, match=re.escape(f"--model: open_clip:{name}: {message}")):
        load(name)


def test_without_open_clip_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(UserError, match=r"open_clip:ViT-B-32:openai: .*\(run: pip install open_clip_torch\)"):
        load("ViT-B-32:openai")


@pytest.mark.parametrize(("max_words", "words", "cut"), [(40, 6, False), (40, 7, True), (3, 3, False), (3, 4, True)])
def test_texts_that_are_cut_are_counted(max_words, words, cut, open_clip):
    """At the words asked for, or at the 8 tokens of the model, two of which are its own."""
    matcher, text = load("ViT-B-32:openai", max_words), " ".join(["dog"] * words)
    matcher.encode_text(["a dog", text])
    assert matcher.truncated == ({text} if cut else set())


def test_its_images_are_cached(open_clip, photos, tmp_path):
    options = ScoreOptions(cache=tmp_path / "cache")
    first = Scorer(load("ViT-B-32:openai"), None, options).scores(*grid(photos))[0]
    again = Scorer(load("ViT-B-32:openai"), None, options)
    assert again.scores(*grid(photos))[0].tolist() == first.tolist()
    assert again.cache is not None and again.cache.hits == len(photos)


def test_a_model_of_open_clips_own_is_scored(photos, tmp_path):
    """A tiny CLIP of a configuration and a file of weights."""
    real = pytest.importorskip("open_clip", reason="no open_clip_torch")
    layers = {"width": 16, "heads": 2, "layers": 1}
    vision = {"image_size": 32, "patch_size": 16, "width": 64, "layers": 1}
    sizes = {"embed_dim": 8, "vision_cfg": vision, "text_cfg": {"context_length": 12, "vocab_size": 49408, **layers}}
    (tmp_path / "tiny-test.json").write_text(json.dumps(sizes))
    real.add_model_config(tmp_path / "tiny-test.json")
    made, _, preprocess = real.create_model_and_transforms("tiny-test")
    torch.save(made.state_dict(), tmp_path / "tiny.pt")
    matcher = load(f"tiny-test:{tmp_path / 'tiny.pt'}")
    assert isinstance(matcher, OpenClipMatcher) and matcher.max_tokens == 12
    found, _ = Scorer(matcher).scores(*grid(photos))
    ids = real.get_tokenizer("tiny-test")(["a red box", "a dog on the box", "the dog"])
    with torch.no_grad():
        images = made.eval().encode_image(torch.stack([preprocess(Image.open(p)) for p in photos]), normalize=True)
        wanted = images @ made.encode_text(ids, normalize=True).T
    torch.testing.assert_close(found, wanted.flatten(), atol=1e-5, rtol=0)
    for words, cut in ((10, False), (11, True)):
        matcher.truncated.clear()
        matcher.encode_text([" ".join(["dog"] * words)])
        assert bool(matcher.truncated) == cut
