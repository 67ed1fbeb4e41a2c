"""The steps of a run around a stand-in engine: when it saves, when it gives up."""

import csv
import itertools
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from relvlm import checkpoints
from relvlm.config.schema import CheckpointConfig, Config
from relvlm.config.training import EvalConfig
from relvlm.config.trouble import SpikesConfig
from relvlm.data.batches.worker_signs import WorkerSigns
from relvlm.engine import judging, steps
from relvlm.engine.columns import PHASES
from relvlm.engine.inputs import RunInputs
from relvlm.engine.judging import Judge
from relvlm.engine.run_state import Progress
from relvlm.engine.signals import Told
from relvlm.engine.steps import Training
from relvlm.engine.watchdog import Watchdog
from relvlm.errors import UserError

NAN = float("nan")
NOTHING = RunInputs(0, [], [], [], {})  # of a run whose loader is a stand-in


class Batch(SimpleNamespace):
    """A batch of one number, the loss."""

    kind, dataset, images, text_ids, samples_hash = "captions", "coco", 4, range(12), 5

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

    def counts(self) -> dict[str, int]:
        return {"faults": 0, "unusable": 2}


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


def training_of(config: Config, engine: Engine | None = None, told: Told | None = None) -> Training:
    """Whose watchdog's thread is not started."""
    watch = Watchdog(Path(config.out), "000001", config.deadlines)
    return Training(config, NOTHING, engine or Engine(), torch.device("cpu"), told or Told({}), watch)


def train(
    config: Config,
    losses: list[float],
    monkeypatch,
    start: int = 0,
    told: Told | None = None,
    judge: Judge | None = None,
) -> tuple[Engine, Path, list[int]]:
    saved: list[int] = []
    monkeypatch.setattr(steps, "build_loader", lambda *_, start_step, **__: Loader(losses))
    monkeypatch.setattr(steps, "Saver", lambda *of: Saves(*of, saved))
    engine = Engine()
    last = replace(training_of(config, engine, told), judge=judge).run(Progress(start))
    assert last.parent == Path(config.out) / "checkpoints"
    return engine, last, saved


class OneFigure:
    """A judge that finds the checkpoint's step, and cannot judge one of the steps."""

    def __init__(self, unable: int = 0) -> None:
        self.unable, self.judged = unable, []

    def check(self) -> None: ...

    def figures(self, checkpoint: Path, device: torch.device) -> dict[str, float]:
        step = checkpoints.step_of(checkpoint)
        if step == self.unable:
            raise UserError("no photos")
        self.judged.append(step)
        return {"VSR": float(step)}


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


def test_rows_are_written_at_the_interval(config, monkeypatch):
    flushed = []
    flush = steps.Monitor.flush
    monkeypatch.setattr(steps.Monitor, "flush", lambda self: flushed.append(len(self.pending)) or flush(self))
    train(config, [1.0] * 6, monkeypatch)
    assert flushed == [4, 2]


def test_the_loader_goes_on_at_the_step_with_patches_of_the_model(config, monkeypatch):
    asked = {}
    monkeypatch.setattr(steps, "world_size", lambda: 3)
    monkeypatch.setattr(steps, "build_loader", lambda *_, **of: asked.update(of) or Loader([1.0] * 6))
    monkeypatch.setattr(steps, "Saver", lambda *of: Saves(*of, []))
    training_of(config).run(Progress(2))
    assert asked["patch_size"] == config.model.image_size // 2 and asked["start_step"] == 2
    assert (asked["rank"], asked["world_size"]) == (0, 3)


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
    monkeypatch.setattr(steps, "build_loader", lambda *_, **__: loader)
    with pytest.raises(UserError, match="shard 3: torn"):
        training_of(config).run(Progress())


def test_it_says_at_the_end_what_the_loader_left_out(config, monkeypatch, caplog):
    with caplog.at_level("INFO"):
        train(config, [1.0] * 6, monkeypatch)
    assert "left out by this rank's loader: unusable 2" in caplog.text and "faults" not in caplog.text


def test_a_streak_of_skipped_steps_goes_on_after_a_start_and_is_saved(config, monkeypatch):
    monkeypatch.setattr(steps, "build_loader", lambda *_, **__: Loader([NAN] * 3))
    found: list = []
    monkeypatch.setattr(steps, "Saver", lambda *of: Saves(*of, found))
    config = replace(config, checkpoint=CheckpointConfig(every=1), max_skipped_steps=4)
    with pytest.raises(UserError, match="step 5: "):
        training_of(config).run(Progress(2, skipped=2))
    assert found == [(3, 3), (4, 4)]


def test_checkpoints_are_evaluated_at_their_interval_and_at_the_end(config, monkeypatch):
    config = replace(config, eval=EvalConfig(every=4, suite="here"), checkpoint=CheckpointConfig(every=3))
    judge = OneFigure()
    _, _, saved = train(config, [1.0] * 6, monkeypatch, judge=judge)
    assert saved == [3, 4, 6] and judge.judged == [4, 6]
    assert judging.read(Path(config.out)) == [("4", "VSR", "4"), ("6", "VSR", "6")]
    assert float(rows(config)[4]["evaluation_s"]) > 0 == float(rows(config)[3]["evaluation_s"])


def test_an_evaluation_that_the_last_start_did_not_come_to_is_made_up_for(config, monkeypatch):
    config = replace(config, eval=EvalConfig(every=2, suite="here"))
    told, judge = Told({}), OneFigure()
    told.reason = "enough"
    train(config, [1.0] * 6, monkeypatch, start=3, told=told, judge=judge)
    assert judge.judged == []  # its time is over
    train(config, [1.0] * 2, monkeypatch, start=4, judge=judge)
    assert judge.judged == [4, 6]


def test_what_cannot_be_evaluated_is_one_line_and_training_goes_on(config, monkeypatch, caplog):
    config = replace(config, eval=EvalConfig(every=2, suite="here"))
    engine, _, _ = train(config, [1.0] * 6, monkeypatch, judge=OneFigure(unable=4))
    assert len(engine.updates) == 6 and "step 4: not evaluated: no photos" in caplog.text
    assert [row[0] for row in judging.read(Path(config.out))] == ["2", "6"]
