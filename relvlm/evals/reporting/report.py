"""Report of runs: tables with bootstrap intervals, plots over checkpoints, paired tests, losses, an error browser."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from relvlm.errors import UserError
from relvlm.evals.checkpoints.every import RESULTS
from relvlm.evals.checkpoints.history import History, read_history
from relvlm.evals.figures import outcomes
from relvlm.evals.figures.bootstrap import Interval, intervals
from relvlm.evals.figures.main_table import ModelRows, model_rows, result_files, with_intervals
from relvlm.evals.figures.main_table import as_markdown as table_markdown
from relvlm.evals.files import Row, read_json, write_atomic
from relvlm.evals.reporting import sections
from relvlm.evals.reporting.browser import Pictures, records_of
from relvlm.evals.reporting.loss_plots import plot_losses, read_log
from relvlm.evals.reporting.pages import Section, as_html, as_latex, as_markdown
from relvlm.evals.tasks.example import PER_SIDE

EVALUATIONS = "eval"
LOG = "metrics.csv"


@dataclass(frozen=True)
class Report:
    """What was written; `table` is the Markdown text of table.md."""

    table: str
    files: tuple[Path, ...]


@dataclass(frozen=True)
class Run:
    """One run's results: `results` by task (of its `eval` folder), of all checkpoints, and its training log."""

    name: str
    folders: dict[str, Path]
    results: dict[str, Row]
    outcomes: dict[str, outcomes.Outcomes]
    intervals: dict[str, dict[str, Interval]]
    history: History | None
    log: Path | None

    @property
    def rows(self) -> ModelRows:
        """Its line of the main table, with bootstrap intervals."""
        return with_intervals(model_rows(self.name, self.results), self.intervals)


def report(runs: Sequence[Path], out: Path, names: Sequence[str] = (), per_side: int = PER_SIDE) -> Report:
    """Write report.html, report.md, report.tex, table.md, figures.csv and the plots under `out`.

    A run's evaluations are the `metrics.json` files under its `eval` folder (under itself where it has none), those
    of its checkpoints under `checkpoints_eval`; its log is `metrics.csv`. `per_side`: examples in the browser, of
    each piece, right and wrong. Raises UserError for a run that has none of these.
    """
    titles = list(names) or [run.resolve().name for run in runs]
    if len(set(titles)) != len(runs):
        raise UserError(f"runs: names {', '.join(titles)} are not one and different for each (give --names)")
    read = [_read(run, title) for run, title in zip(runs, titles, strict=True)]
    evaluated = [run for run in read if run.results]
    table = table_markdown(*(run.rows for run in evaluated)) if evaluated else ""
    parts = _sections(read, out)
    pictures = Pictures()
    examples = [
        e for run in evaluated for e in records_of(run.name, run.folders.values(), pictures, per_side)
    ]
    files = [path for part in parts for path in part.plots]
    texts = {
        "table.md": table,
        "figures.csv": sections.figures_csv(evaluated),
        "report.md": as_markdown(parts, out),
        "report.tex": as_latex(parts),
        "report.html": as_html(parts, examples, pictures),
    }
    for name, text in texts.items():
        if text:
            write_atomic(out / name, [text])
            files.append(out / name)
    return Report(table, tuple(files))


def _read(run: Path, title: str) -> Run:
    evaluations = run / EVALUATIONS if (run / EVALUATIONS).is_dir() else run
    log = run / LOG if (run / LOG).is_file() else None
    history = read_history(run, title)
    if history and evaluations == run:  # what lies under the run itself is of its checkpoints
        folders = {name: path.parent for name, path in result_files(history.folders[-1]).items()}
    else:
        folders = {name: path.parent for name, path in result_files(evaluations).items()}
    if not (folders or log or history):
        raise UserError(f"{run}: neither {LOG} nor any metrics.json nor {RESULTS} (give the folder of a run)")
    found = {name: outcomes.of_folder(folder) for name, folder in folders.items()}
    return Run(
        title,
        folders,
        {name: read_json(folder / "metrics.json") for name, folder in folders.items()},
        found,
        {name: intervals(each) for name, each in found.items()},
        history,
        log,
    )


def _sections(runs: Sequence[Run], out: Path) -> list[Section]:
    evaluated = [run for run in runs if run.results]
    histories = [run.history for run in runs if run.history]
    parts: list[Section] = []
    if evaluated:
        parts.append(sections.main_table([run.rows for run in evaluated]))
    if histories:
        parts += sections.checkpoints(histories, out)
    parts += sections.paired_tests(evaluated)
    if evaluated:
        parts.append(sections.every_figure(evaluated))
    for run in runs:
        if run.log:
            plots = plot_losses(read_log(run.log), out / run.name)
            parts.append(Section(f"Losses of {run.name}", "Smoothed; pale: each step.", (), tuple(plots)))
    return parts
