"""Which differences to its checkpoint a run goes on with: each is named, by what its field may do."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from relvlm.config.load import load_config
from relvlm.config.schema import Config
from relvlm.data.shards.schema import SCHEMA_VERSION
from relvlm.engine import resume
from relvlm.errors import UserError

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "cat"]
CONFIG = """\
out: {here}/run
init: random
model: {{mrc_hidden: 8}}
data:
  vocab: {here}/vocab.txt
  relations: {here}/relations.txt
  captions: [{{path: {here}/one}}, {{path: {here}/two}}]
  graphs: [{{path: {here}/never/drawn}}]
  batch: {{captions: 4}}
  ratio: {{captions: 1}}
"""


def shard_set(folder: Path, digest: str) -> None:
    folder.mkdir(exist_ok=True)
    entry = {"name": "000000.tar", "sha256": digest, "bytes": 10, "samples": 2}
    manifest = {"schema": SCHEMA_VERSION, "shards": [entry]}
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS))
    (tmp_path / "relations.txt").write_text("left of\non\n")
    (tmp_path / "run.yaml").write_text(CONFIG.format(here=tmp_path))
    shard_set(tmp_path / "one", "aa")
    shard_set(tmp_path / "two", "bb")
    return tmp_path


def config(here: Path, *overrides: str) -> Config:
    return load_config(here / "run.yaml", list(overrides))


@pytest.fixture
def checkpoint(here: Path) -> Path:
    """Its description and what its run was told; no weights."""
    folder, told = here / "step_0000004", config(here)
    folder.mkdir()
    about: dict[str, Any] = resume.to_tree(told)
    about = {"step": 4, "vocab_size": 7, "relations": ["left of", "on"], "model": about["model"], "data": about["data"]}
    (folder / "config.json").write_text(json.dumps(about))
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    (folder / "run.json").write_text(resume.description(told, resume.inputs_of(told)))
    return folder


def found(checkpoint: Path, *overrides: str) -> list[str]:
    """The differences that the run goes on with."""
    now = config(checkpoint.parent, *overrides)
    return [str(each) for each in resume.check(checkpoint, now, resume.inputs_of(now))]


def refused(checkpoint: Path, *overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        found(checkpoint, *overrides)
    return str(caught.value)


def test_the_same_run_has_no_difference(checkpoint):
    assert found(checkpoint) == []


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("data.workers=3", "data.workers: 0 there, 3 here"),
        ("log_every=7", "log_every: 20 there, 7 here"),
        ("checkpoint={every: 5, keep: 2}", "checkpoint.every: 1000 there, 5 here"),
        ("name=other", "name: 'run' there, 'other' here"),
        ("model.recompute=true", "model.recompute: False there, True here"),
        ("data.graphs=[{path: elsewhere}]", "here"),
    ],
)
def test_what_changes_nothing_that_is_computed_is_told_and_taken(checkpoint, override, said):
    assert any(line.endswith(said) for line in found(checkpoint, override))


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("seed=1", "seed: 0 there, 1 here"),
        ("steps=10", "steps: 200000 there, 10 here"),
        ("optim.lr=1e-3", "optim.lr: 0.0001 there, 0.001 here"),
        ("optim.betas=[0.9, 0.99]", "optim.betas: [0.9, 0.95] there, [0.9, 0.99] here"),
        ("optim.weight_decay=0.1", "optim.weight_decay: 0.02 there, 0.1 here"),
        ("data.ratio.captions=2", "data.ratio.captions: 1.0 there, 2.0 here"),
        ("data.flip=0.5", "data.flip: 0.0 there, 0.5 here"),
        ("optim.weight_decay=0", "optim.weight_decay: 0.02 there, 0.0 here"),
        ("accumulate=2", "accumulate: 1 there, 2 here"),
        ("dtype=bf16", "dtype: 'fp32' there, 'bf16' here"),
        ("model.text.dropout=0.2", "model.text.dropout: 0.1 there, 0.2 here"),
        ("model.vision.patch_keep=0.5", "model.vision.patch_keep: 1.0 there, 0.5 here"),
    ],
)
def test_what_changes_the_run_is_refused_until_it_is_accepted(checkpoint, override, said):
    key = said.split(":")[0]
    assert f"{said} (set it back, or take it with resume.accept=[{key}]" in refused(checkpoint, override)
    for accepted in (key, key.rpartition(".")[0] or key):
        assert said in found(checkpoint, override, f"resume.accept=[{accepted}]")
    assert said in refused(checkpoint, override, "resume.accept=[max_skipped_steps]")


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("model.embed_dim=16", "model.embed_dim"),
        ("model.vision={kind: swin}", "model.vision.kind"),
        ("model.temperature=0.1", "model.temperature"),
        ("init={text: random, vision: vit}", "init.vision"),
        ("optim.new_lr_factor=2", "optim.new_lr_factor"),
    ],
)
def test_what_the_state_rests_on_is_refused_in_any_case(checkpoint, override, key):
    said = refused(checkpoint, override, f"resume.accept=[{key}]")
    assert f"{key}: " in said and "that is another model or another start; set another `out`" in said


def test_every_difference_is_named_at_once(checkpoint):
    said = refused(checkpoint, "seed=3", "optim.lr=1", "model.embed_dim=16", "data.workers=2")
    assert [line.split(":")[0].strip() for line in said.splitlines()[1:]] == ["seed", "model.embed_dim", "optim.lr"]


@pytest.mark.parametrize(
    ("file", "text"),
    [("vocab.txt", "\n".join([*WORDS[:-1], "dog"])), ("relations.txt", "on\nleft of\n"), ("relations.txt", "on\nx\n")],
)
def test_as_many_other_words_or_relations_are_another_model(checkpoint, file, text):
    (checkpoint.parent / file).write_text(text)
    key = f"data.{file.split('.')[0]}"
    assert f"{key}: " in refused(checkpoint, f"resume.accept=[{key}]")


def test_a_last_line_end_makes_no_other_words(checkpoint):
    (checkpoint.parent / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    assert found(checkpoint) == []


def test_a_shard_set_of_the_same_name_and_other_content_is_another(checkpoint):
    shard_set(checkpoint.parent / "two", "cc")
    said = refused(checkpoint)
    assert "data.captions[1].path: " in said and "(sha256 " in said and "captions[0]" not in said
    assert found(checkpoint, "resume.accept=[data.captions]")[0].startswith("data.captions[1].path: ")


def test_a_shard_set_that_was_moved_is_the_same(checkpoint):
    here = checkpoint.parent
    (here / "one").rename(here / "moved")
    paths = f"data.captions=[{{path: {here}/moved}}, {{path: {here}/two}}]"
    assert [line.split(":")[0] for line in found(checkpoint, paths)] == ["data.captions[0].path"]
    assert found(checkpoint, paths) == [f"data.captions[0].path: '{here}/one' there, '{here}/moved' here"]


def test_a_shard_set_more_or_less_is_a_difference(checkpoint):
    here = checkpoint.parent
    assert "data.captions[1].path" in refused(checkpoint, f"data.captions=[{{path: {here}/one}}]")
    three = f"data.captions=[{{path: {here}/one}}, {{path: {here}/two}}, {{path: {here}/one}}]"
    assert "data.captions[2].path: None there" in refused(checkpoint, three)


def test_a_checkpoint_of_before_run_json_is_compared_in_what_it_knows(checkpoint):
    (checkpoint / "run.json").unlink()
    assert found(checkpoint, "optim.lr=1") == []
    assert "data.flip: 0.0 there" in refused(checkpoint, "data.flip=0.5")
    assert "model.embed_dim: 256 there" in refused(checkpoint, "model.embed_dim=16")
    (checkpoint.parent / "vocab.txt").write_text("\n".join([*WORDS[:-1], "dog"]))
    assert "data.vocab: " in refused(checkpoint)


def test_a_key_that_the_checkpoint_does_not_know_had_its_default(checkpoint):
    told = json.loads((checkpoint / "run.json").read_text())
    del told["config"]["optim"]["clip_norm"], told["config"]["resume"]
    (checkpoint / "run.json").write_text(json.dumps(told))
    assert found(checkpoint) == []
    assert "optim.clip_norm: 1.0 there, 2.0 here" in refused(checkpoint, "optim.clip_norm=2")


@pytest.mark.parametrize("text", ["{", "[]", '{"config": 3, "inputs": {}}', '{"inputs": {}}'])
def test_a_torn_run_json_is_named(checkpoint, text):
    (checkpoint / "run.json").write_text(text)
    assert "run.json: not" in refused(checkpoint)


def test_a_start_from_a_checkpoint_of_other_words_is_refused(checkpoint):
    here = checkpoint.parent
    assert resume.check_words(checkpoint, config(here)) == []
    (here / "vocab.txt").write_text("\n".join([*WORDS[:-1], "dog"]))
    with pytest.raises(UserError) as caught:
        resume.check_words(checkpoint, config(here))
    for part in ("init.checkpoint: ", "line 7 is 'cat', 'dog' in data.vocab", f"data.vocab={checkpoint}/vocab.txt"):
        assert part in str(caught.value)


def test_a_start_from_a_checkpoint_of_other_relations_is_told(checkpoint):
    here = checkpoint.parent
    (here / "relations.txt").write_text("left of\nunder\n")
    (note,) = resume.check_words(checkpoint, config(here))
    assert "line 2 is 'on', 'under' in data.relations: the MRC head starts anew" in note
    (checkpoint / "vocab.txt").unlink()
    assert "has no vocab.txt" in resume.check_words(checkpoint, config(here))[0]


def test_a_missing_shard_set_is_named(here):
    told = config(here)
    with pytest.raises(UserError, match=r"no manifest\.json"):
        resume.inputs_of(replace(told, data=replace(told.data, captions=[replace(told.data.captions[0], path="x")])))
