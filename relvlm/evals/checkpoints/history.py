"""Figures of a run's checkpoints, as `relvlm eval --all-checkpoints` left them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from relvlm.errors import UserError
from relvlm.evals.checkpoints.every import RESULTS
from relvlm.evals.figures.bootstrap import intervals
from relvlm.evals.figures.main_table import Cell, with_intervals
from relvlm.evals.results import model_rows, outcomes_of, read_results, result_files
from relvlm.evals.tasks.registry import columns
from relvlm.evals.tasks.verdict import HELD_OUT

# The paper chooses by COCO dev TR@1; where that was not scored, by the next of these.
CHOOSERS = ("COCO dev TR@1", "COCO TR@1", "Paragraphs dev TR@1", "VSR dev")


@dataclass(frozen=True)
class History:
    """Checkpoints of one run, oldest first; `titles` are the figures that all of them have."""

    name: str
    steps: tuple[int, ...]
    cells: tuple[Mapping[str, Cell], ...]
    folders: tuple[Path, ...]

    @property
    def titles(self) -> list[str]:
        """The main figures: neither the calibrated ones nor recalls beyond 1."""
        main = [column.title for column in columns() if column.over_steps]
        return [title for title in main if all(title in cells for cells in self.cells)]

    def values(self, title: str) -> list[float]:
        """The figure at each checkpoint."""
        return [cells[title].value for cells in self.cells]

    def best(self, title: str) -> int:
        """Place of the checkpoint that is best by a figure, the earliest of equals."""
        values = self.values(title)
        return values.index(max(values))

    def mean(self, titles: Sequence[str]) -> list[float]:
        """Mean of several figures at each checkpoint."""
        return [sum(cells[t].value for t in titles) / len(titles) for cells in self.cells]


def read_history(run: Path, name: str) -> History | None:
    """With bootstrap intervals; None where no checkpoint of the run was evaluated."""
    folders = sorted((path for path in (run / RESULTS).glob("step_*") if result_files(path)), key=_step)
    if not folders:
        return None
    steps = tuple(_step(path) for path in folders)
    if len(set(steps)) != len(steps):
        raise UserError(f"{run / RESULTS}: two folders of one step: {', '.join(path.name for path in folders)}")
    return History(name, steps, tuple(_cells(path, name) for path in folders), tuple(folders))


def held_out_cells(folder: Path) -> Mapping[str, Cell]:
    """Of the main figures of one evaluation, those on combinations that RelWorld's training sets never show."""
    found = {}
    for title, cell in model_rows(folder.name, read_results(folder)).cells.items():
        outcomes = outcomes_of(result_files(folder)[cell.task].parent)
        name = f"{cell.figure.removesuffix('overall')}{HELD_OUT}"
        if cell.figure.endswith("overall") and name in outcomes.names:
            share, n = intervals(outcomes)[name], int(outcomes.counted[:, outcomes.names.index(name)].sum())
            found[title] = Cell(share.value, (share.low, share.high), cell.chance, n, name, cell.task)
    return found


def _step(folder: Path) -> int:
    number = folder.name.removeprefix("step_")
    if not (number.isascii() and number.isdigit()):
        raise UserError(f"{folder}: its name is no step_<number> (rename it, or take it out)")
    return int(number)


def _cells(folder: Path, name: str) -> Mapping[str, Cell]:
    found = {task: intervals(outcomes_of(path.parent)) for task, path in result_files(folder).items()}
    return with_intervals(model_rows(name, read_results(folder)), found).cells


def common_titles(histories: Sequence[History]) -> list[str]:
    """Titles that any history has, in the columns' order."""
    return [c.title for c in columns() if any(c.title in h.titles for h in histories)]


def axis_titles(axis: Literal["coarse", "fine"]) -> list[str]:
    """Titles of the figures whose mean is one axis of the Pareto front."""
    return [column.title for column in columns() if column.axis == axis]


def chooser(history: History) -> str | None:
    """The figure to choose a checkpoint by: COCO dev TR@1 where it was scored (the paper's way)."""
    return next((title for title in CHOOSERS if title in history.titles), None)
