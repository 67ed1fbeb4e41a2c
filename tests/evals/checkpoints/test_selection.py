"""Which checkpoint: matrix, correlations, front."""

import argparse
from pathlib import Path

import pytest

from relvlm.errors import UserError
from relvlm.evals.checkpoints.history import History
from relvlm.evals.checkpoints.selection import (
    axes,
    best_lines,
    correlation_lines,
    matrix,
    matrix_lines,
    pareto,
    pareto_lines,
)
from relvlm.evals.figures.main_table import Cell
from relvlm.evals.reporting import pareto_cli

FIGURES = {
    "VALSE": [50.0, 60.0, 55.0],
    "COCO TR@1": [10.0, 8.0, 12.0],
    "COCO dev TR@1": [11.0, 9.0, 10.0],
}


@pytest.fixture()
def history() -> History:
    cells = [
        {t: Cell(values[i], (values[i] - 1, values[i] + 1), 0.0, 9) for t, values in FIGURES.items()} for i in range(3)
    ]
    return History("run", (10, 20, 30), tuple(cells), ())


def test_matrix_reports_each_task_at_the_checkpoint_that_another_chooses(history: History) -> None:
    assert set(history.titles) == set(FIGURES)
    place = {title: i for i, title in enumerate(history.titles)}
    found = matrix(history)
    assert found[place["VALSE"], place["COCO TR@1"]] == 8
    assert found[place["COCO TR@1"], place["VALSE"]] == 55
    assert found[place["COCO dev TR@1"], place["VALSE"]] == 50
    assert [found[i, i] for i in range(3)] == [max(history.values(t)) for t in history.titles]


def test_a_checkpoint_is_chosen_by_coco_dev_where_there_is_one(history: History) -> None:
    lines = best_lines([history])
    assert [line[0] for line in lines[1:]] == ["run, best by COCO dev TR@1", "run, last", "run, best by each"]
    assert lines[1][1] == "10"
    assert lines[3][lines[0].index("VALSE")] == "60.0"


def test_correlations_are_symmetric_and_1_with_themselves(history: History) -> None:
    lines = correlation_lines(history)
    values = [line[1:] for line in lines[1:]]
    assert all(values[i][i] == "1.00" for i in range(3))
    assert [list(row) for row in zip(*values, strict=True)] == values


def test_front_holds_what_nothing_beats() -> None:
    assert pareto([1, 2, 3, 3, 0], [3, 2, 1, 1, 0]) == [0, 1, 2, 3]
    assert pareto([1, 2], [1, 2]) == [1]
    assert pareto([1, 1], [1, 2]) == [1]


def test_front_of_a_run(history: History) -> None:
    assert [line[0] for line in pareto_lines(history)[1:]] == ["20", "30"]
    with pytest.raises(UserError, match="--fine: SVO: its checkpoints have"):
        pareto_lines(history, fine=["SVO"])


def test_pareto_of_a_run_that_was_not_evaluated_is_refused(tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    pareto_cli.add_arguments(parser)
    with pytest.raises(UserError, match="no checkpoint is evaluated"):
        pareto_cli.main(parser.parse_args([str(tmp_path)]))


def test_a_columns_best_choice_is_bold(history: History) -> None:
    head, *lines = matrix_lines(history)
    assert head == ["chosen by", "step", "VALSE", "COCO TR@1", "COCO dev TR@1"]
    assert lines[0] == ["VALSE", "20", "**60.0**", "8.0", "9.0"]
    assert lines[1] == ["COCO TR@1", "30", "55.0", "**12.0**", "10.0"]
    assert lines[2] == ["COCO dev TR@1", "10", "50.0", "10.0", "**11.0**"]


def test_a_line_has_the_figures_with_their_intervals(history: History) -> None:
    head, by_dev, last, by_each = best_lines([history])
    assert head == ["", "step", "VALSE", "COCO TR@1", "COCO dev TR@1"]
    assert by_dev[1:] == ["10", "50.0 (49.0-51.0)", "10.0 (9.0-11.0)", "11.0 (10.0-12.0)"]
    assert last[1:3] == ["30", "55.0 (54.0-56.0)"]
    assert by_each[1:] == ["", "60.0", "12.0", "11.0"]


def test_runs_with_other_figures_leave_cells_empty(history: History) -> None:
    cells = tuple({"SVO": Cell(value, None, 0.0, 9)} for value in (1.0, 2.0, 3.0))
    lines = best_lines([history, History("other", (1, 2, 3), cells, ())])
    assert lines[0][-1] == "SVO" and [line[-1] for line in lines[1:4]] == ["", "", ""]
    assert lines[4] == ["other, last", "3", "", "", "", "3.0"]  # nothing to choose by
    assert lines[5][-1] == "3.0"


def test_correlations_are_spearmans(history: History) -> None:
    head, valse, coco, _ = correlation_lines(history)
    assert head == ["Spearman", "VALSE", "COCO TR@1", "COCO dev TR@1"]
    assert valse[2] == "-0.50" and coco[3] == "0.50"
    flat = History("flat", (10, 20), tuple({"SVO": Cell(1.0, None, None, 1)} for _ in range(2)), ())
    assert correlation_lines(flat)[1] == ["SVO", "-"]


def test_axes_are_the_known_figures_unless_others_are_given(history: History) -> None:
    assert axes(history) == (["COCO TR@1"], ["VALSE"])
    assert axes(history, ["COCO dev TR@1", "COCO TR@1"], ["COCO TR@1"]) == (
        ["COCO dev TR@1", "COCO TR@1"],
        ["COCO TR@1"],
    )
    with pytest.raises(UserError, match="--coarse: VSR: its checkpoints have VALSE, COCO"):
        axes(history, ["VSR", "COCO TR@1"])
    fine_alone = History("f", (1,), ({"SVO": Cell(1.0, None, None, 1)},), ())
    with pytest.raises(UserError, match="--coarse: no such figure"):
        axes(fine_alone)


def test_the_front_is_by_step_with_both_means(history: History) -> None:
    head, *lines = pareto_lines(history)
    assert head == ["run", "coarse: COCO TR@1", "fine: VALSE"]
    assert lines == [["20", "8.0", "60.0"], ["30", "12.0", "55.0"]]
