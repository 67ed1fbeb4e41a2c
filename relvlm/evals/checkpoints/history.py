"""Figures of a run's checkpoints, as `relvlm eval --all-checkpoints` left them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from relvlm.evals.checkpoints.every import RESULTS
from relvlm.evals.figures.bootstrap import intervals
from relvlm.evals.figures.main_table import (
    COLUMNS,
    Cell,
    model_rows,
    read_results,
    result_files,
    with_intervals,
)
from relvlm.evals.figures.outcomes import of_folder

CHOOSERS = ("COCO dev TR@1", "COCO TR@1", "Paragraphs dev TR@1", "VSR dev")
FINE = ("VSR", "VSR dev", "VSR test", "VALSE", "SVO", "SugarCrepe", "Winoground group", "ARO")
COARSE = ("COCO TR@1", "COCO IR@1", "Flickr30K TR@1", "Flickr30K IR@1")


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
        return [t for t in COLUMNS if _is_main(t) and all(t in cells for cells in self.cells)]

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
    folders = sorted(path for path in (run / RESULTS).glob("step_*") if result_files(path))
    if not folders:
        return None
    steps = tuple(int(path.name.removeprefix("step_")) for path in folders)
    return History(name, steps, tuple(_cells(path, name) for path in folders), tuple(folders))


def _cells(folder: Path, name: str) -> Mapping[str, Cell]:
    found = {task: intervals(of_folder(path.parent)) for task, path in result_files(folder).items()}
    return with_intervals(model_rows(name, read_results(folder)), found).cells


def common_titles(histories: Sequence[History]) -> list[str]:
    """Titles that any history has, in the columns' order."""
    return [title for title in COLUMNS if any(title in h.titles for h in histories)]


def chooser(history: History) -> str | None:
    """The figure to choose a checkpoint by: COCO dev TR@1 where it was scored (the paper's way)."""
    return next((title for title in CHOOSERS if title in history.titles), None)


def _is_main(title: str) -> bool:
    return not title.endswith(("calibrated", "@5"))
