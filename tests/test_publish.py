"""`relvlm publish`: the folder that others load, its card of one's own evaluation, its upload."""

import argparse
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub import HfApi, ModelCard
from PIL import Image
from safetensors.torch import load_file, save_file
from support.model_folders import write_toy
from transformers import AutoModel, AutoProcessor

import relvlm
import relvlm.hub  # for the Auto classes
from relvlm import publish
from relvlm.config.schema import DatasetConfig
from relvlm.errors import UserError
from relvlm.evals.evaluate import evaluate


def run(*arguments: object) -> None:
    parser = argparse.ArgumentParser()
    publish.add_arguments(parser)
    publish.main(parser.parse_args([str(a) for a in arguments]))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_toy(tmp_path)


@pytest.fixture
def evals(folder: Path, tmp_path: Path) -> Path:
    """Results of the checkpoint on a few rows of Winoground."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for name, colour in (("0", (250, 0, 0)), ("1", (0, 0, 250))):
        Image.new("RGB", (20, 10), colour).save(photos / f"{name}.png")
    row = {"id": 0, "caption_0": "a dog", "caption_1": "the box", "image_0": "0.png", "image_1": "1.png"}
    (tmp_path / "examples.jsonl").write_text(json.dumps(row) + "\n")
    model = relvlm.load(folder)
    out = tmp_path / "evals"
    evaluate(model, model.tokenizer, "winoground", tmp_path / "examples.jsonl", photos, out / "winoground")
    return out


def test_a_published_folder_loads_by_its_card_and_as_a_checkpoint(folder, evals, tmp_path, capsys):
    out = tmp_path / "published"
    run(folder, out, "--license", "apache-2.0", "--evals", evals)
    assert sorted(p.name for p in out.iterdir()) == ["README.md", "config.json", "model.safetensors", "vocab.txt"]
    assert "1 figures in README.md" in capsys.readouterr().out
    card = ModelCard.load(out / "README.md")
    assert [each.dataset_name for each in card.data.eval_results] == ["Winoground group"]
    for model in (AutoModel.from_pretrained(out).relvlm, relvlm.load(out)):
        for name, tensor in relvlm.load(folder).state_dict().items():
            assert torch.equal(model.state_dict()[name], tensor)
    assert AutoProcessor.from_pretrained(out)(text="a dog")["input_ids"].tolist() == [[2, 5, 6, 3]]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_the_folder_may_be_the_one_it_runs_in_or_a_link(folder, tmp_path, monkeypatch):
    for name in ("mine", "real"):
        (tmp_path / name).mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    monkeypatch.chdir(tmp_path / "mine")
    for out in (".", "../link"):
        run(folder, out, "--license", "other")
    for name in ("mine", "real"):
        assert f"from_pretrained('{name}')" in (tmp_path / name / "README.md").read_text()
    assert (tmp_path / "link").is_symlink()


def test_it_says_nothing_of_ones_own_folders(tmp_path):
    folder = write_toy(tmp_path, captions=[DatasetConfig("/home/me/coco")])
    assert "/home/me" in (folder / "config.json").read_text()
    run(folder, tmp_path / "out", "--license", "other")
    for name in ("config.json", "README.md"):
        text = (tmp_path / "out" / name).read_text()
        assert "coco" in text and "/home" not in text and str(tmp_path) not in text


def test_a_checkpoint_from_before_gets_the_form_of_today(folder, tmp_path):
    tensors = load_file(folder / "model.safetensors")
    save_file(tensors, folder / "model.safetensors")
    description = json.loads((folder / "config.json").read_text())
    del description["model_type"]
    (folder / "config.json").write_text(json.dumps(description))
    out = tmp_path / "out"
    run(folder, out, "--license", "other")
    AutoModel.from_pretrained(out).save_pretrained(tmp_path / "again")
    for name in ("config.json", "model.safetensors"):
        assert (out / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_figures_of_other_weights_are_refused(folder, evals, tmp_path):
    tensors = load_file(folder / "model.safetensors")
    tensors["temperature"] += 1
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(UserError, match="winoground: of other weights than the checkpoint's"):
        run(folder, tmp_path / "out", "--license", "other", "--evals", evals)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [("full", "already there"), ("no vocab", r"vocab\.txt: no such file"), ("no evals", "no such folder")],
)
def test_what_cannot_be_published_is_said_before_anything_is_written(change, message, folder, tmp_path):
    out, more = tmp_path / "out", []
    if change == "full":
        out.mkdir()
        (out / "mine").touch()
    if change == "no vocab":
        (folder / "vocab.txt").unlink()
    if change == "no evals":
        more = ["--evals", tmp_path / "none"]
    with pytest.raises(UserError, match=message):
        run(folder, out, "--license", "other", *more)
    assert not out.exists() or [p.name for p in out.iterdir()] == ["mine"]


def test_a_private_folder_makes_no_sense(folder, tmp_path):
    with pytest.raises(UserError, match="--private"):
        run(folder, tmp_path / "out", "--license", "other", "--private")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What would have been sent."""
    sent = SimpleNamespace(repositories=[], folders=[], refuses=None)

    def create(self, name, private=None, exist_ok=False):
        if sent.refuses:
            raise sent.refuses
        sent.repositories.append((name, private, exist_ok))
        return SimpleNamespace(repo_id=name)

    def upload(self, repo_id, folder_path, commit_message):
        sent.folders.append((repo_id, {p.name: p.read_bytes() for p in Path(folder_path).iterdir()}))

    monkeypatch.setattr(HfApi, "create_repo", create)
    monkeypatch.setattr(HfApi, "upload_folder", upload)
    return sent


@pytest.mark.parametrize(("flags", "private"), [((), None), (("--private",), True)])
def test_the_whole_folder_is_uploaded(flags, private, folder, tmp_path, hub):
    run(folder, tmp_path / "out", "--license", "other", "--push", "me/toy", *flags)
    assert hub.repositories == [("me/toy", private, True)]
    assert hub.folders == [("me/toy", {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()})]
    assert "AutoModel.from_pretrained('me/toy')" in (tmp_path / "out/README.md").read_text()


def test_a_hub_that_refuses_is_one_line_and_the_folder_stays(folder, tmp_path, hub):
    hub.refuses = OSError("401 Client Error\nmore")
    with pytest.raises(UserError, match=r"^--push: me/toy: 401 Client Error \(hf auth login; .*out is written\)$"):
        run(folder, tmp_path / "out", "--license", "other", "--push", "me/toy")
    assert (tmp_path / "out/README.md").exists()
