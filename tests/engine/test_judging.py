"""What a run does about evaluations of its checkpoints."""

import json
import math
from dataclasses import replace

import pytest

from relvlm import storage
from relvlm.config.schema import Config
from relvlm.config.training import EvalConfig
from relvlm.engine import judging


@pytest.mark.parametrize(
    ("step", "due"), [(0, True), (1, False), (3, False), (4, True), (8, True), (9, False), (10, True)]
)
def test_every_so_many_steps_and_the_last_one_are_evaluated(step, due):
    config = Config(steps=10, eval=EvalConfig(every=4, suite="here"))
    assert judging.is_due(step, config) == due
    assert not judging.is_due(step, replace(config, eval=EvalConfig()))


def test_a_step_that_was_not_evaluated_before_the_run_ended_is_missing(tmp_path):
    config = Config(steps=10, eval=EvalConfig(every=4, suite="here"))
    judging.note(tmp_path, tmp_path / "step_0000004", {"VSR": 50.0}, None)
    found = [judging.is_missing(step, tmp_path, config) for step in (0, 4, 6, 8)]
    assert found == [False, False, False, True]


def test_figures_of_a_step_come_after_those_before_it_and_replace_later_ones(tmp_path):
    for step, value in ((4, 50.0), (8, 60.5), (12, 70.0), (8, 1 / 3)):
        judging.note(tmp_path, tmp_path / f"step_{step:07d}", {"VSR": value, "a, b": 1.0}, None)
    assert judging.read(tmp_path) == [
        ("4", "VSR", "50"), ("4", "a, b", "1"), ("8", "VSR", "0.333333"), ("8", "a, b", "1"),
    ]  # fmt: skip
    assert judging.best_step(tmp_path) is None


def test_the_best_is_the_earliest_of_equals(tmp_path, caplog):
    found = []
    for step, value in ((4, 50.0), (8, 60.0), (12, 60.0), (16, 55.0)):
        judging.note(tmp_path, tmp_path / f"step_{step:07d}", {"SVO": -value, "VSR": value}, "VSR")
        found.append(judging.best_step(tmp_path))
    assert found == [4, 8, 8, 8]
    assert json.loads((tmp_path / judging.BEST).read_text()) == {"figure": "VSR", "value": 60.0, "step": 8}
    judging.note(tmp_path, tmp_path / "step_0000006", {"VSR": 1.0}, "VSR")  # the run has gone back
    assert judging.best_step(tmp_path) == 4


def test_what_is_no_number_is_not_the_best(tmp_path):
    for step, value in ((4, math.nan), (8, 30.0), (12, math.nan)):
        judging.note(tmp_path, tmp_path / f"step_{step:07d}", {"VSR": value}, "VSR")
    assert judging.best_step(tmp_path) == 8


def test_a_figure_that_no_evaluation_has_is_said(tmp_path, caplog):
    judging.note(tmp_path, tmp_path / "step_0000004", {"VSR": 50.0}, "VALSE")
    assert "'VALSE' is none of VSR" in caplog.text and judging.best_step(tmp_path) is None


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"step": null}', '{"step": "x"}'])
def test_of_a_damaged_file_no_step_is_the_best(tmp_path, content):
    (tmp_path / judging.BEST).write_text(content)
    assert judging.best_step(tmp_path) is None


def test_a_disk_that_takes_no_figures_is_one_line(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(storage, "write_whole", full)
    with pytest.raises(storage.DiskError, match=r"evals\.csv: cannot be written"):
        judging.note(tmp_path, tmp_path / "step_0000004", {"VSR": 50.0}, None)
