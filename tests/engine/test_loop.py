"""The training loop around a stand-in engine: when it saves, when it gives up, what it refuses beforehand."""

import csv
import itertools
import json
import shutil
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from relvlm import checkpoints
from relvlm.config.load import load_config
from relvlm.config.schema import CheckpointConfig, Config, DataConfig, DatasetConfig, KindRatios
from relvlm.config.trouble import SpikesConfig
from relvlm.data.batches.worker_signs import WorkerSigns
from relvlm.engine import loop
from relvlm.engine.columns import PHASES
from relvlm.engine.inputs import RunInputs, read_inputs
from relvlm.engine.run_state import Progress
from relvlm.engine.signals import Told
from relvlm.engine.watchdog import Watchdog
from relvlm.errors import UserError

NAN = float("nan")
NOTHING = RunInputs(0, [], [], [], {})  # of a run whose loader is a stand-in


class Batch(SimpleNamespace):
    """A batch of one number, the loss."""

    kind, dataset, images, text_ids, samples_hash = "captions", "coco", 4, range(12), 5
    left_out = (0, 2, 0, 0, 0)

    def to(self, device: torch.device) -> "Batch":
        return self


class Loader:
    """Steps of one batch of the losses given; then the error, if any."""

    def __init__(self, losses: list[float], error: Exception | None = None) -> None:
        self.losses, self.error = iter(losses), error

    def __next__(self) -> list[Batch]:
        for loss in self.losses:
            return [Batch(loss=loss)]
        raise self.error or AssertionError("the loop asked for more batches than it has steps")

    signs = WorkerSigns(0)


class Engine:
    """As much of DeepSpeed's engine as the loop uses; its model gives the loss that the batch asks for."""

    skipped_steps = 0

    def __init__(self) -> None:
        self.module = SimpleNamespace(model=SimpleNamespace(vision=SimpleNamespace(grid=(2, 2))))
        self.optimizer = SimpleNamespace(param_groups=[{"lr": 0.1}])
        self.updates: list[float] = []
        self.pending: Tensor | None = None

    def train(self) -> None: ...

    def zero_optimization_stage(self) -> int:
        return 1

    def __call__(self, batch: Batch, of: None) -> tuple[Tensor, dict[str, Tensor]]:
        loss = torch.tensor(batch.loss)
        return loss, {"itc": loss, "itm": loss + 1}

    def gradient_accumulation_steps(self) -> int:
        return 1

    def set_gradient_accumulation_boundary(self, boundary: bool) -> None:
        assert boundary

    def backward(self, loss: Tensor) -> None:
        self.pending = loss

    def step(self) -> None:
        assert self.pending is not None
        if self.pending.isfinite():
            self.updates.append(self.pending.item())
        else:
            self.skipped_steps += 1


class Saves:
    """In place of a Saver: the steps that it was asked to save, with how many were skipped before."""

    def __init__(self, folder: Path, config: Config, last: Path, found: list) -> None:
        self.folder, self.last, self.found = folder, last, found

    def save(self, engine: Engine, progress: Progress) -> None:
        step, skipped = progress.step, progress.skipped
        self.found.append((step, skipped) if skipped else step)
        self.last = self.folder / f"step_{step:07d}"

    def wait(self, most: int = 0) -> Path:
        return self.last

    def close(self) -> None: ...


@pytest.fixture
def config(tmp_path: Path) -> Config:
    data = DataConfig(ratio=KindRatios(captions=1))
    (tmp_path / "run").mkdir()
    return Config(out=str(tmp_path / "run"), steps=6, max_skipped_steps=2, log_every=4, data=data)


def watch_of(config: Config) -> Watchdog:
    """Whose thread is not started."""
    return Watchdog(Path(config.out), "000001", config.deadlines)


def train(
    config: Config, losses: list[float], monkeypatch, start: int = 0, told: Told | None = None
) -> tuple[Engine, Path, list[int]]:
    saved: list[int] = []
    monkeypatch.setattr(loop, "build_loader", lambda *_, start_step, **__: Loader(losses))
    monkeypatch.setattr(loop, "Saver", lambda *of: Saves(*of, saved))
    engine = Engine()
    last = loop._train(
        config, NOTHING, engine, Progress(start), torch.device("cpu"), told or Told({}), watch_of(config)
    )
    assert last.parent == Path(config.out) / "checkpoints"
    return engine, last, saved


def rows(config: Config) -> list[dict[str, str]]:
    with (Path(config.out) / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_it_saves_at_the_interval_and_at_the_end(config, monkeypatch):
    config = replace(config, checkpoint=CheckpointConfig(every=4))
    engine, last, saved = train(config, [1.0] * 6, monkeypatch)
    assert saved == [4, 6] and last.name == "step_0000006" and len(engine.updates) == 6
    assert [row["step"] for row in rows(config)] == ["1", "2", "3", "4", "5", "6"]


def test_a_run_that_is_already_done_trains_nothing(config, monkeypatch):
    engine, last, saved = train(config, [], monkeypatch, start=6)
    assert saved == [] and engine.updates == [] and last.name == "step_0000006"


def test_told_to_end_it_saves_the_step_that_it_is_in_and_ends(config, monkeypatch):
    told = Told({})
    told.reason = "enough"
    engine, last, saved = train(config, [1.0] * 6, monkeypatch, start=2, told=told)
    assert saved == [3] and last.name == "step_0000003" and len(engine.updates) == 1
    assert [row["step"] for row in rows(config)] == ["3"]


def test_a_step_is_in_one_phase_after_another(config, monkeypatch):
    """Of a clock that goes a second at each look: the first steps load, train and log, the last ones save too."""
    ticks = itertools.count()
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(ticks)))
    train(replace(config, checkpoint=CheckpointConfig(every=4)), [1.0] * 6, monkeypatch)
    found = rows(config)
    for row in found:
        assert sum(float(row[f"{phase}_s"]) for phase in PHASES) == pytest.approx(float(row["step_s"]))
        assert all(float(row[f"{phase}_s"]) for phase in ("data", "forward", "backward", "optimizer", "logging"))
    assert [float(row["saving_s"]) > 0 for row in found] == [False] * 4 + [True, False]  # in the row after it


def test_skipped_steps_are_counted_in_their_rows(config, monkeypatch):
    train(config, [1.0, NAN, NAN, 2.0, NAN, 3.0], monkeypatch)
    assert [row["skipped_so_far"] for row in rows(config)] == ["0", "1", "2", "2", "3", "3"]


def test_a_logger_that_is_not_there_is_named_before_any_work(config):
    with pytest.raises(UserError, match=r"loggers: wandb is not installed \(pip install wandb"):
        read_inputs(replace(config, loggers=["wandb"]))


def test_rows_are_written_at_the_interval(config, monkeypatch):
    flushed = []
    flush = loop.Monitor.flush
    monkeypatch.setattr(loop.Monitor, "flush", lambda self: flushed.append(len(self.pending)) or flush(self))
    train(config, [1.0] * 6, monkeypatch)
    assert flushed == [4, 2]


def test_the_loader_goes_on_at_the_step_with_patches_of_the_model(config, monkeypatch):
    asked = {}
    monkeypatch.setattr(loop, "world_size", lambda: 3)
    monkeypatch.setattr(loop, "build_loader", lambda *_, **of: asked.update(of) or Loader([1.0] * 6))
    monkeypatch.setattr(loop, "Saver", lambda *of: Saves(*of, []))
    loop._train(config, NOTHING, Engine(), Progress(2), torch.device("cpu"), Told({}), watch_of(config))
    assert asked["patch_size"] == config.model.image_size // 2 and asked["start_step"] == 2
    assert (asked["rank"], asked["world_size"]) == (0, 3)


@pytest.mark.parametrize(("stage", "refused"), [(2, False), (3, True), (None, False)])
@pytest.mark.parametrize("option", ["momentum", "compile"])
def test_whole_parameters_are_needed_on_every_rank_by_some(config, stage, refused, option):
    model = config.model
    changed = {"compile": True} if option == "compile" else {"momentum": replace(model.momentum, enabled=True)}
    settings = {} if stage is None else {"zero_optimization": {"stage": stage}}
    with pytest.raises(UserError, match=rf"model\.{option}.*stage 0-2") if refused else nullcontext():
        loop._check_stage(replace(config, model=replace(model, **changed)), settings)
    loop._check_stage(config, settings)


def test_a_step_without_a_finite_loss_changes_nothing(config, monkeypatch):
    engine, _, _ = train(config, [1.0, NAN, float("inf"), 2.0, NAN, 3.0], monkeypatch)
    assert engine.updates == [1.0, 2.0, 3.0]
    assert rows(config)[1]["captions/itc"] == "nan"
    assert [row["skipped"] for row in rows(config)] == ["0", "1", "1", "0", "1", "0"]


def test_it_stops_with_a_diagnosis_after_too_many_in_a_row(config, monkeypatch):
    with pytest.raises(UserError) as caught:
        train(config, [1.0, NAN, 2.0, NAN, NAN, NAN], monkeypatch)
    message = str(caught.value)
    for part in ("step 6", "captions batch of coco", "itc nan", "max_skipped_steps", "optim.lr", "no good checkpoint"):
        assert part in message
    assert [row["captions/itm"] for row in rows(config)] == ["2.0", "nan", "3.0", "nan", "nan", "nan"]


def test_spikes_in_a_row_are_too_many_where_a_most_is_set(config, monkeypatch):
    losses, spikes = [1.0] * 16 + [99.0] * 4, SpikesConfig(window=16)
    config = replace(config, steps=20, log_every=1)
    train(replace(config, spikes=spikes), losses, monkeypatch)
    assert [row["step"] for row in rows(config) if row["spike"] == "1"] == ["17", "18", "19", "20"]
    with pytest.raises(UserError, match="step 19: the loss is a spike, 3 times in a row"):
        train(replace(config, spikes=replace(spikes, max_steps=2)), losses, monkeypatch)


def test_an_error_of_the_loader_comes_through(config, monkeypatch):
    loader = Loader([1.0], UserError("shard 3: torn"))
    monkeypatch.setattr(loop, "build_loader", lambda *_, **__: loader)
    with pytest.raises(UserError, match="shard 3: torn"):
        loop._train(config, NOTHING, Engine(), Progress(), torch.device("cpu"), Told({}), watch_of(config))


def test_it_says_at_the_end_what_the_loader_left_out(config, monkeypatch, caplog):
    with caplog.at_level("INFO"):
        train(config, [1.0] * 6, monkeypatch)
    assert "left out by the loaders of all ranks, after step 0: truncated_texts 12\n" in caplog.text


def test_a_missing_vocabulary_is_named_before_any_work(config):
    with pytest.raises(UserError, match=r"gone\.txt: data\.vocab: no such file"):
        loop.run(replace(config, data=replace(config.data, vocab="gone.txt")))


def test_a_missing_relation_file_is_named_before_any_work(config, tmp_path):
    (tmp_path / "vocab.txt").write_text("[PAD]")
    data = DataConfig(vocab=str(tmp_path / "vocab.txt"), relations="gone.txt", ratio=KindRatios(mrc=1))
    with pytest.raises(UserError, match=r"gone\.txt: data\.relations: no such file"):
        loop.run(replace(config, data=data))


def test_a_streak_of_skipped_steps_goes_on_after_a_start_and_is_saved(config, monkeypatch):
    monkeypatch.setattr(loop, "build_loader", lambda *_, **__: Loader([NAN] * 3))
    found: list = []
    monkeypatch.setattr(loop, "Saver", lambda *of: Saves(*of, found))
    config = replace(config, checkpoint=CheckpointConfig(every=1), max_skipped_steps=4)
    with pytest.raises(UserError, match="step 5: "):
        loop._train(config, NOTHING, Engine(), Progress(2, skipped=2), torch.device("cpu"), Told({}), watch_of(config))
    assert found == [(3, 3), (4, 4)]


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
    monkeypatch.setattr(loop.resume, "check", lambda newest, *_: [f"value of {newest.name}"])
    with caplog.at_level("INFO"):
        assert loop._begin(config, {}, folder) == folder / "step_0000003"
    assert sorted(path.name for path in folder.iterdir()) == ["damaged_step_0000005", "step_0000003"]
    assert f"{made / 'config.json'}: damaged" in caplog.text and "another value of step_0000003" in caplog.text
