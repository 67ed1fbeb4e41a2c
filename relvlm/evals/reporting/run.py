"""One run's results, as a report reads them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from relvlm.errors import UserError
from relvlm.evals.checkpoints.every import RESULTS
from relvlm.evals.checkpoints.history import History, read_history
from relvlm.evals.figures.bootstrap import Interval, intervals
from relvlm.evals.figures.main_table import ModelRows, with_intervals
from relvlm.evals.figures.outcomes import Outcomes
from relvlm.evals.files import Row
from relvlm.evals.results import model_rows, outcomes_of, read_figures, result_files

EVALUATIONS = "eval"
LOG = "metrics.csv"


@dataclass(frozen=True)
class Run:
    """One run's results: `results` by task (of its `eval` folder), of all checkpoints, and its training log."""

    name: str
    folders: dict[str, Path]
    results: dict[str, Row]
    outcomes: dict[str, Outcomes]
    intervals: dict[str, dict[str, Interval]]
    history: History | None
    log: Path | None

    @property
    def rows(self) -> ModelRows:
        """Its line of the main table, with bootstrap intervals."""
        return with_intervals(model_rows(self.name, self.results), self.intervals)


def read_run(run: Path, title: str) -> Run:
    """Raises UserError for a folder with neither evaluations nor a log."""
    if not run.is_dir():
        raise UserError(f"{run}: no such folder (give the folder of a run)")
    log = run / LOG if (run / LOG).is_file() else None
    history = read_history(run, title)
    folders = _folders(run, history)
    if not (folders or log or history):
        raise UserError(f"{run}: neither {LOG} nor any metrics.json nor {RESULTS} (give the folder of a run)")
    results = {name: read_figures(folder / "metrics.json") for name, folder in folders.items()}
    outcomes = {name: outcomes_of(folder) for name, folder in folders.items()}
    drawn = {name: intervals(each) for name, each in outcomes.items()}
    return Run(title, folders, results, outcomes, drawn, history, log)


def _folders(run: Path, history: History | None) -> dict[str, Path]:
    """Those of its `eval` folder; where it has none, what lies in it, which may be of its last checkpoint."""
    within = run / EVALUATIONS
    if not within.is_dir():
        within = history.folders[-1] if history else run
    return {name: path.parent for name, path in result_files(within).items()}
