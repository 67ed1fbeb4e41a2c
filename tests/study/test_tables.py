"""Tables and plots of a study's results."""

import json
from dataclasses import replace

import pytest

from relvlm.errors import UserError
from relvlm.study import tables
from relvlm.study.plan import Folds
from relvlm.study.report import report


def test_the_table_has_means_spreads_and_intervals_of_what_is_there(plan, keep):
    for arm, values in (("X-VLM", (50.0, 54.0)), ("ReX-VLM", (60.0,))):
        for seed, value in zip(plan.seeds, values, strict=False):
            keep(arm, seed, value)
    results = tables.read_results(plan, plan.budgets[0])
    lines = tables.main_lines(plan, results)
    assert lines[0] == ["", "seeds", "steps", "images", "TFLOP", "VSR"]
    assert lines[1] == ["**X-VLM**", "2", "10", "640", "0.50", "**52.0** ± 2.8"]
    assert lines[2][-1] == "26.5-77.5"  # 12.7 * 2.83 / sqrt 2 and the examples' 2
    assert lines[3] == ["**ReX-VLM**", "1", "10", "640", "0.50", "**60.0**"] and lines[4][-1] == ""
    assert lines[5] == ["chance", "", "", "", "", "50.0"]


def test_folds_have_examples_of_their_own(plan, keep):
    for seed, value in zip(plan.seeds, (50.0, 54.0), strict=True):
        keep("X-VLM", seed, value)
    folds = replace(plan, folds=[Folds("folds", "images", "captions.json", "instances.json", "sugarcrepe")])
    (_, _, interval, *_) = tables.main_lines(folds, tables.read_results(plan, plan.budgets[0]))
    assert interval[-1] == "26.6-77.4"  # 12.7 * 2.83 / sqrt 2 alone
    assert "examples of its own" in report(folds) and "all seeds share" in report(plan)


def test_comparisons_take_the_seeds_that_both_have_and_correct_for_their_number(plan, keep):
    for seed, value in zip(plan.seeds, (50.0, 54.0), strict=True):
        keep("X-VLM", seed, value, svo=70.0)
        keep("ReX-VLM", seed, value + 10 + seed / 10, svo=70.0 + seed)
    keep("X-VLM", 99, 1.0, svo=1.0)  # no seed of the plan
    lines = tables.test_lines(plan, tables.read_results(plan, plan.budgets[0]))
    assert [line[:3] for line in lines[1:]] == [
        ["ReX-VLM - X-VLM", "VSR", "**+10.4**"], ["ReX-VLM - X-VLM", "SVO", "+4.0"],
    ]  # fmt: skip
    assert all(line[-1] == "2" for line in lines[1:])
    assert float(lines[1][5].strip("*")) == pytest.approx(2 * float(lines[1][4]), rel=1e-2)


def test_figures_are_those_that_all_have_unless_named(plan, keep):
    keep("X-VLM", 3, 50.0, svo=60.0)
    keep("ReX-VLM", 3, 50.0)
    results = tables.read_results(plan, plan.budgets[0])
    assert tables.figures_of(plan, results) == ["VSR"]
    object.__setattr__(plan, "figures", ["SVO"])
    with pytest.raises(UserError, match="figures: SVO: not among those of every run: VSR"):
        tables.figures_of(plan, results)


def test_a_damaged_result_is_named(plan, keep):
    path = keep("X-VLM", 3, 50.0)
    path.write_text(path.read_text()[:40])
    with pytest.raises(UserError, match=rf"{path}: not readable"):
        tables.read_results(plan, plan.budgets[0])


def test_a_report_has_tables_tests_plots_and_hours(plan, keep, tmp_path):
    for arm in ("X-VLM", "ReX-VLM"):
        for seed in plan.seeds:
            keep(arm, seed, 50.0 + seed)
    text = report(plan, "python -m relvlm.study toy.yaml")
    assert (tmp_path / "results/study.md").read_text() == text
    assert text.startswith("# toy\n\n    python -m relvlm.study toy.yaml\n\nMean")
    assert "± 1.4" in text and "ReX-VLM - X-VLM" in text and "1.00 hours of one thread; here." in text
    assert [path.name for path in (tmp_path / "results/plots").iterdir()] == ["steps-vsr.png"]


def test_tables_have_a_folder_of_their_own_where_plans_share_results(plan, keep, tmp_path):
    keep("X-VLM", 3, 50.0)
    text = report(replace(plan, report=str(tmp_path / "tables")))
    assert (tmp_path / "tables/study.md").read_text() == text and (tmp_path / "tables/plots/steps-vsr.png").is_file()
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["runs"]


def test_arms_of_different_cost_are_drawn_against_it(plan, keep, tmp_path):
    drawn = tmp_path / "results/plots/steps-cost.png"
    keep("X-VLM", 3, 50.0)
    cheap = keep("ReX-VLM", 3, 60.0)
    report(plan)
    assert not drawn.exists()
    cheap.write_text(cheap.read_text().replace('"tflop": 0.5', '"tflop": 0.25'))
    assert "![steps-cost](plots/steps-cost.png)" in report(plan) and drawn.is_file()


def test_cost_is_drawn_of_results_without_curves(plan, keep, tmp_path):
    for arm, tflop in (("X-VLM", 0.5), ("ReX-VLM", 0.25)):
        path = keep(arm, 3, 50.0)
        result = json.loads(path.read_text()) | {"curves": {}, "tflop": tflop}
        path.write_text(json.dumps(result))
    report(plan)
    assert [path.name for path in (tmp_path / "results/plots").iterdir()] == ["steps-cost.png"]


def test_a_study_without_results_says_nothing_of_them(plan):
    assert "##" not in report(plan)


def test_held_out_combinations_have_a_table_of_the_seeds_that_tell(plan, keep):
    for seed, right in zip(plan.seeds, (60.0, 64.0), strict=True):
        path = keep("ReX-VLM", seed, 70.0, svo=80.0)
        told = {"VSR": {"value": right, "interval": [50.0, 70.0], "chance": 50.0, "n": 25}}
        path.write_text(json.dumps(json.loads(path.read_text()) | {"held_out": told}))
    keep("X-VLM", 3, 50.0, svo=60.0)
    results = tables.read_results(plan, plan.budgets[0])
    assert tables.held_out_lines(results, ["VSR", "SVO"]) == [
        ["", "seeds", "VSR"], ["**ReX-VLM**", "2", "**62.0** ± 2.8"], ["n", "", "25"],
    ]  # fmt: skip
    assert tables.held_out_lines({"X-VLM": results["X-VLM"]}, ["VSR"]) == [["", "seeds", "VSR"]]
    assert "no training set shows" in report(plan)
