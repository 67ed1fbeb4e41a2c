"""Several runs of one model: told apart by their seeds, summed up with spreads and tests."""

import json
import shutil
from pathlib import Path

import pytest

from relvlm.errors import UserError
from relvlm.evals.evaluate import evaluate_suite
from relvlm.evals.reporting.over_seeds import names_of
from relvlm.evals.reporting.report import report
from relvlm.evals.reporting.run import read_run


@pytest.fixture
def seeds(suite: Path, tmp_path: Path, model) -> list[Path]:
    """Four runs with the results of one model: of seeds 3 and 1 of one name, 1 and 3 of another."""
    evaluate_suite(model, model.tokenizer, suite, tmp_path / "a/eval")
    for name, seed in {"a": 3, "b": 1, "c": 1, "d": 3}.items():
        if name != "a":
            shutil.copytree(tmp_path / "a", tmp_path / name)
        (tmp_path / name / "config.yaml").write_text(f"seed: {seed}\n")
    return [tmp_path / name for name in "abcd"]


def test_runs_of_one_name_are_told_apart_by_their_seeds(seeds):
    names, shared = names_of(seeds[:3], ["ReX", "ReX", "X"])
    assert names == ["ReX, seed 3", "ReX, seed 1", "X"]
    assert shared == {"ReX": {3: 0, 1: 1}}
    with pytest.raises(UserError, match="ReX: a second run of seed 1"):
        names_of(seeds[:3], ["ReX", "ReX", "ReX"])
    (seeds[1] / "config.yaml").write_text("seed: 1\noptim: {lr: 0.5}\n")
    with pytest.raises(
        UserError, match=r"a, .*b: ReX: not seeds of one model: optim\.lr: 'the default' and 0\.5 \(give"
    ):
        names_of(seeds[:2], ["ReX", "ReX"])
    (seeds[1] / "config.yaml").unlink()
    with pytest.raises(UserError, match=r"config.yaml: no such config file"):
        names_of(seeds[:2], ["ReX", "ReX"])


def test_a_report_sums_up_the_seeds_and_tests_the_models(seeds, tmp_path):
    report(seeds, tmp_path / "out", ["ReX", "ReX", "X", "X"])
    text = (tmp_path / "out/report.md").read_text()
    part = text[text.index("## Over seeds") : text.index("## Results")]
    value = read_run(seeds[0], "").rows.cells["SVO"].value
    assert f"**{value:.1f}** ± 0.0" in part
    (test,) = [line for line in part.splitlines() if line.startswith("| X - ReX") and "SVO" in line]
    assert [cell.strip() for cell in test.split("|")[3:8]] == ["+0.0", "", "1", "1", "2"]
    assert "ReX, seed 1 against ReX, seed 3" in text  # each run is there, too


def test_names_are_one_for_each_run(seeds, tmp_path):
    with pytest.raises(UserError, match="--names: 2 for 4 runs"):
        report(seeds, tmp_path / "out", ["ReX", "X"])


def test_a_study_puts_its_spread_under_the_run_that_was_trained_alike(seeds, tmp_path, caplog):
    for seed, value in enumerate((40.0, 50.0)):
        result = {"arm": "ReX", "budget": "steps", "figures": {"SVO": {"value": value}}, "recipe": {}}
        (tmp_path / "study/runs").mkdir(parents=True, exist_ok=True)
        (tmp_path / f"study/runs/{seed}.json").write_text(json.dumps(result))
    written = report(seeds[:2], tmp_path / "out", ["ReX", "X"], spread=tmp_path / "study")
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in written.table.splitlines()]
    (spread,) = [line for line in lines if line[0] == "over 2 seeds"]
    assert spread[lines[0].index("SVO")] == "45.0 ± 7.1" and spread[lines[0].index("VALSE")] == ""
    assert lines.index(spread) == [line[0] for line in lines].index("**ReX**") + 2
    (seeds[0] / "config.yaml").write_text("steps: 7\n")
    assert "over 2 seeds" not in report(seeds[:2], tmp_path / "out", ["ReX", "X"], spread=tmp_path / "study").table
    assert "not shown under ReX: steps: 'the default' and 7 there and in" in caplog.text
    with pytest.raises(UserError, match=r"--spread: .*study: of ReX, which is no run's name"):
        report(seeds[:2], tmp_path / "out", ["rex", "X"], spread=tmp_path / "study")
    with pytest.raises(UserError, match=r"no results of a study"):
        report(seeds[:1], tmp_path / "out", spread=tmp_path)
    (tmp_path / "study/runs/2.json").write_text(json.dumps(result | {"budget": "FLOPs"}))
    with pytest.raises(UserError, match="ReX: of several budgets"):
        report(seeds[:1], tmp_path / "out", spread=tmp_path / "study")
