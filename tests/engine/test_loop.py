"""A run's start: what it refuses beforehand, what it says of itself, where it goes on."""

import json
import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from relvlm import checkpoints
from relvlm.config.load import load_config
from relvlm.config.schema import DataConfig, DatasetConfig, KindRatios
from relvlm.engine import loop, rollback
from relvlm.engine.inputs import read_inputs
from relvlm.errors import UserError


def test_a_logger_that_is_not_there_is_named_before_any_work(config):
    with pytest.raises(UserError, match=r"loggers: wandb is not installed \(pip install wandb"):
        read_inputs(replace(config, loggers=["wandb"]))


@pytest.mark.parametrize(("stage", "refused"), [(2, False), (3, True), (None, False)])
@pytest.mark.parametrize("option", ["momentum", "compile"])
def test_whole_parameters_are_needed_on_every_rank_by_some(config, stage, refused, option):
    model = config.model
    changed = {"compile": True} if option == "compile" else {"momentum": replace(model.momentum, enabled=True)}
    settings = {} if stage is None else {"zero_optimization": {"stage": stage}}
    with pytest.raises(UserError, match=rf"model\.{option}.*stage 0-2") if refused else nullcontext():
        loop.distributed.check_stage(replace(config, model=replace(model, **changed)), settings)
    loop.distributed.check_stage(config, settings)


def test_a_missing_vocabulary_is_named_before_any_work(config):
    with pytest.raises(UserError, match=r"gone\.txt: data\.vocab: no such file"):
        loop.run(replace(config, data=replace(config.data, vocab="gone.txt")))


def test_a_missing_relation_file_is_named_before_any_work(config, tmp_path):
    (tmp_path / "vocab.txt").write_text("[PAD]")
    data = DataConfig(vocab=str(tmp_path / "vocab.txt"), relations="gone.txt", ratio=KindRatios(mrc=1))
    with pytest.raises(UserError, match=r"gone\.txt: data\.relations: no such file"):
        loop.run(replace(config, data=data))


def test_an_out_that_cannot_be_a_folder_is_named_before_any_work(config, tmp_path):
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file/below/it"):
        with pytest.raises(UserError, match=rf"^out: {out}: {tmp_path / 'file'} is a file"):
            loop.run(replace(config, out=str(out)))


def test_all_that_is_missing_is_named_at_once(config, tmp_path):
    (tmp_path / "file").write_text("")
    data = replace(config.data, vocab="gone.txt", relations="none.txt", ratio=KindRatios(captions=1, mrc=1))
    data = replace(data, captions=[DatasetConfig("no/set")], graphs=[DatasetConfig("no/set")])
    with pytest.raises(UserError) as caught:
        loop.run(replace(config, out=str(tmp_path / "file"), data=data))
    said = str(caught.value).splitlines()
    assert len(said) == 5
    for line, part in zip(said, ["out: ", "none.txt", "gone.txt", "data.captions[0].path", "init.vision"], strict=True):
        assert part in line


def test_an_out_that_is_read_only_is_named_before_any_work(config, monkeypatch):
    monkeypatch.setattr(loop.storage.os, "access", lambda *_: False)  # root may write anywhere
    with pytest.raises(UserError, match=rf"^out: {config.out}: {config.out} cannot be written"):
        loop.run(config)


def test_a_disk_without_room_for_one_checkpoint_is_named(tmp_path, monkeypatch):
    model = torch.nn.Linear(9, 1)  # 10 parameters of 16 bytes
    for free, right in (
        (160, nullcontext()),
        (159, pytest.raises(UserError, match=r"^out: .*No space for a checkpoint")),
    ):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: SimpleNamespace(free=free, total=10**12))
        with right:
            loop.run_state.check_room(model, tmp_path / "to/come")


def test_a_run_says_at_its_start_what_it_was_told(config, monkeypatch, caplog):
    folder = Path(config.out) / "checkpoints"
    (folder / ".step_0000003.tmp").mkdir(parents=True)
    monkeypatch.setattr(loop, "check_words", lambda _: ["another word"])
    with caplog.at_level("INFO"):
        assert loop._begin(config, {"data.vocab": "ab"}, folder) is None
    assert json.loads((Path(config.out) / "run.json").read_text())["inputs"] == {"data.vocab": "ab"}
    assert load_config(Path(config.out) / "config.yaml", ["data.batch.captions=4", "data.captions=[{path: x}]"])
    assert list(folder.iterdir()) == [] and "another word" in caplog.text


def test_a_run_goes_on_from_the_newest_whole_checkpoint_and_names_the_damaged_one(config, monkeypatch, caplog):
    folder = Path(config.out) / "checkpoints"
    for step in (3, 5):
        made = folder / checkpoints.name_of(step)
        made.mkdir(parents=True)
        (made / "config.json").write_text("{}")
        checkpoints.write_manifest(made, {"config.json": checkpoints.file_record(made / "config.json")})
    (made / "config.json").write_text("[]")
    (Path(config.out) / rollback.FILE).write_text('{"step": 5, "rollbacks": 1}')  # to the one that is damaged
    monkeypatch.setattr(loop.resume, "check", lambda newest, *_: [f"value of {newest.name}"])
    with caplog.at_level("INFO"):
        assert loop._begin(config, {}, folder) == folder / "step_0000003"
    assert sorted(path.name for path in folder.iterdir()) == ["damaged_step_0000005", "latest", "step_0000003"]
    assert not (Path(config.out) / rollback.FILE).exists()
    assert f"{made / 'config.json'}: damaged" in caplog.text and "another value of step_0000003" in caplog.text
    with pytest.raises(UserError, match=r"^steps: 2: .*step_0000003 has more"):
        loop._begin(replace(config, steps=2), {}, folder)
