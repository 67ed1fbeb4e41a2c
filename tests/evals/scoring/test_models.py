"""Which Matcher is made of what; any object with encode_image, encode_text and match is evaluated."""

import json
import sys
from pathlib import Path

import pytest
from PIL import Image
from support.redness import Redness

from relvlm.errors import UserError
from relvlm.evals.evaluate import evaluate
from relvlm.evals.scoring.any_model import AnyModel
from relvlm.evals.scoring.models import as_matcher, named_model
from relvlm.evals.scoring.relvlm_matcher import RelVLMMatcher
from relvlm.evals.scoring.scorer import Scorer


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


def test_a_relvlm_and_anyones_model_have_their_own_matchers(model) -> None:
    mine = as_matcher(model, None, 40, 9, False)
    assert isinstance(mine, RelVLMMatcher) and mine.tokenizer is model.tokenizer
    assert (mine.max_words, mine.max_tokens, mine.sep) == (40, 9, False)
    assert isinstance(as_matcher(Redness(), None, 40, 0, None), AnyModel)
    other = object()
    assert as_matcher(model, other, 40, 0, None).tokenizer is other  # type: ignore[arg-type, attr-defined]


@pytest.mark.parametrize("name", ["hf:", "open_clip:", "py:module", "py:module:", "xy:a:b", "module"])
def test_a_model_of_another_spelling_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="none of hf:PATH, open_clip:NAME:PRETRAINED, py:MODULE:CALLABLE"):
        named_model(name, 40)


def test_a_hugging_face_model_is_found_by_its_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"hf:.*: no config\.json"):
        named_model(f"hf:{tmp_path}", 40)
