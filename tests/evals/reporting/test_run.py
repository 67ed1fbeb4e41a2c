"""What of a run's folder a report reads."""

import json
from pathlib import Path

import pytest

from relvlm.errors import UserError
from relvlm.evals.reporting.run import read_run

PIECES = {"n": 2, "overall": 50.0, "interval95": [1, 99], "chance": 50.0}


def evaluated(folder: Path, won: int = 1) -> None:
    """Two examples of SugarCrepe, so many of them right."""
    folder.mkdir(parents=True)
    rows = []
    for i in range(2):
        for ending, score in (("c", 0.5), ("n", 0.5 - 0.1 * (i < won))):
            rows.append({"label": f"{i}_{ending}", "piece": "swap_obj", "score": score})
    (folder / "scores.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "metrics.json").write_text(json.dumps({"task": "sugarcrepe", **PIECES, "won": won}))


def test_an_evaluation_is_read_with_its_intervals(tmp_path: Path) -> None:
    evaluated(tmp_path / "eval/sugarcrepe")
    run = read_run(tmp_path, "A")
    assert run.folders == {"sugarcrepe": tmp_path / "eval/sugarcrepe"}
    assert run.results["sugarcrepe"]["won"] == 1
    assert (run.history, run.log) == (None, None)
    assert run.intervals["sugarcrepe"]["overall"].value == 50
    cell = run.rows.cells["SugarCrepe"]
    assert cell.interval == (0, 100) and run.rows.name == "A"


def test_what_lies_in_eval_goes_before_the_rest(tmp_path: Path) -> None:
    evaluated(tmp_path / "eval/sugarcrepe")
    evaluated(tmp_path / "other", won=2)
    assert read_run(tmp_path, "A").results["sugarcrepe"]["won"] == 1


def test_without_eval_it_is_what_lies_in_the_folder(tmp_path: Path) -> None:
    evaluated(tmp_path / "sugarcrepe", won=2)
    assert read_run(tmp_path, "A").results["sugarcrepe"]["won"] == 2


def test_without_eval_it_is_the_last_checkpoints(tmp_path: Path) -> None:
    for step, won in ((10, 1), (20, 2)):
        evaluated(tmp_path / f"checkpoints_eval/step_{step:07d}/sugarcrepe", won)
    run = read_run(tmp_path, "A")
    assert run.results["sugarcrepe"]["won"] == 2
    assert run.history is not None and run.history.steps == (10, 20)
    evaluated(tmp_path / "eval/sugarcrepe", won=0)
    assert read_run(tmp_path, "A").results["sugarcrepe"]["won"] == 0


def test_a_log_alone_is_a_run_and_nothing_at_all_is_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"neither metrics\.csv nor any metrics\.json nor checkpoints_eval"):
        read_run(tmp_path, "A")
    (tmp_path / "metrics.csv").write_text("step\n")
    assert read_run(tmp_path, "A").log == tmp_path / "metrics.csv"


def test_a_folder_that_is_not_there_is_named_as_such(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none: no such folder"):
        read_run(tmp_path / "none", "A")
