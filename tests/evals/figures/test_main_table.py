"""The lines of the main table, of toy models."""

from relvlm.evals.figures.bootstrap import Interval
from relvlm.evals.figures.main_table import (
    Cell,
    Column,
    ModelRows,
    both,
    overall_cell,
    table_lines,
    with_intervals,
)


def test_a_model_has_a_line_of_figures_and_one_of_intervals() -> None:
    first = ModelRows("A", {"x": Cell(51.04, (40.04, 60.06), 50.0, 9), "z": Cell(1.26, None, None, 7)})
    second = ModelRows("B", {"y": Cell(2, (1, 3), 25.0, 8), "x": Cell(3, (2, 4), 0.0, 1)})
    assert table_lines([first, second], ["z", "w", "x", "y"]) == [
        ["", "z", "x", "y"],
        ["**A**", "**1.3**", "**51.0**", ""],
        ["95% interval", "", "40.0-60.1", ""],
        ["**B**", "", "**3.0**", "**2.0**"],
        ["95% interval", "", "2.0-4.0", "1.0-3.0"],
        ["chance", "", "50.0 / 0.0", "25.0"],
        ["n", "7", "9 / 1", "8"],
    ]


def test_what_all_models_share_is_said_once() -> None:
    models = [ModelRows(name, {"x": Cell(1, None, 50.0, 9)}) for name in "AB"]
    assert table_lines(models, ["x"])[-2:] == [["chance", "50.0"], ["n", "9"]]


def test_intervals_are_replaced_by_task_and_figure() -> None:
    rows = ModelRows(
        "A", {"x": Cell(1, (0, 2), 50.0, 9, "dev/overall", "vsr"), "y": Cell(1, (0, 2), 50.0, 9, task="svo")}
    )
    found = {"vsr": {"dev/overall": Interval(1, 5, 6)}, "svo": {"overall": Interval(1, 7, 8)}}
    cells = with_intervals(rows, found).cells
    assert (cells["x"].interval, cells["y"].interval) == ((5, 6), (7, 8))
    assert (cells["x"].value, cells["x"].n) == (1, 9)


def test_the_overall_cell_is_named_as_among_the_outcomes() -> None:
    figures = {"overall": 40.0, "interval95": [30, 50], "n": 9}
    assert overall_cell(figures, 25.0, "dev/") == Cell(40, (30, 50), 25, 9, "dev/overall")
    assert both([1, 2]) == (1, 2)


def test_a_column_is_the_last_of_the_main_ones_unless_it_says_so() -> None:
    column = Column("Toy")
    assert (column.place, column.axis, column.over_steps) == (90, None, True)
