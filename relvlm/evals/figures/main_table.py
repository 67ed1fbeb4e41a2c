"""One table of several models, laid out as the paper's Table 2, with intervals, chance and sizes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from relvlm.errors import UserError
from relvlm.evals.figures.bootstrap import Interval
from relvlm.evals.figures.seeds import Spread
from relvlm.evals.files import Row

NO_SPREADS: Mapping[str, Mapping[str, Spread]] = {}


@dataclass(frozen=True)
class Column:
    """A column of the table, by its title.

    A lower `place` stands further left; the default is the last of the main ones, which dev splits (from 100 on) and
    calibrated figures (200) follow. `axis`: which of the Pareto front's two means it enters, if any. `over_steps`:
    whether it is a main figure, drawn over the checkpoints of a run (no calibrated one, no recall beyond 1).
    """

    title: str
    place: int = 90
    axis: Literal["coarse", "fine"] | None = None
    over_steps: bool = True


@dataclass(frozen=True)
class Cell:
    """A figure in percent with its 95% interval (None where none is given), chance level and size.

    `figure`: its name among the outcomes of its evaluation, `task`: that of the evaluation.
    """

    value: float
    interval: tuple[float, float] | None
    chance: float | None
    n: int
    figure: str = "overall"
    task: str = ""


@dataclass(frozen=True)
class ModelRows:
    """A model's cells by column title."""

    name: str
    cells: Mapping[str, Cell]


def overall_cell(figures: Row, chance: float | None, prefix: str = "") -> Cell:
    """The cell of figures whose main one is `overall`; `prefix`: where it stands among the outcomes."""
    return Cell(figures["overall"], both(figures["interval95"]), chance, figures["n"], f"{prefix}overall")


def both(interval: Sequence[float]) -> tuple[float, float]:
    """The two ends of an interval as JSON has it."""
    low, high = interval
    return low, high


def with_intervals(rows: ModelRows, found: Mapping[str, Mapping[str, Interval]]) -> ModelRows:
    """The same figures with these intervals, given by task and by figure."""

    def replaced(cell: Cell) -> Cell:
        interval = found[cell.task].get(cell.figure)
        if interval is None:
            raise UserError(
                f"{rows.name}: {cell.task}: {cell.figure}: no such figure among its outcomes (evaluate again)"
            )
        return replace(cell, interval=(interval.low, interval.high))

    return ModelRows(rows.name, {title: replaced(cell) for title, cell in rows.cells.items()})


def table_lines(
    models: Sequence[ModelRows], order: Sequence[str], spreads: Mapping[str, Mapping[str, Spread]] = NO_SPREADS
) -> list[list[str]]:
    """Per model its figures and, under them, their 95% intervals and known spreads over seeds; then chance and n.

    `order`: all titles; a column that no model has is left out. `spreads`: by model and title.
    """
    titles = [title for title in order if any(title in model.cells for model in models)]
    lines = [["", *titles]]
    for model in models:
        lines.append([f"**{model.name}**", *(_value(model.cells.get(title)) for title in titles)])
        lines.append(["95% interval", *(_interval(model.cells.get(title)) for title in titles)])
        if known := spreads.get(model.name):
            seeds = max(spread.seeds for spread in known.values())
            shown = (known[title].value.replace("**", "") if title in known else "" for title in titles)
            lines.append([f"over {seeds} seeds", *shown])
    cells = {title: [m.cells[title] for m in models if title in m.cells] for title in titles}
    lines.append(["chance", *(_each(_number(cell.chance) for cell in cells[title]) for title in titles)])
    lines.append(["n", *(_each(str(cell.n) for cell in cells[title]) for title in titles)])
    return lines


def _each(values: Iterable[str]) -> str:
    """The models' one value, or theirs in turn where they were not scored on the same examples."""
    found = list(values)
    return found[0] if len(set(found)) == 1 else " / ".join(found)


def _value(cell: Cell | None) -> str:
    return "" if cell is None else f"**{cell.value:.1f}**"


def _interval(cell: Cell | None) -> str:
    return "" if cell is None or cell.interval is None else f"{cell.interval[0]:.1f}-{cell.interval[1]:.1f}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"
