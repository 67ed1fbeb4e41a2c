"""Report of runs: one table of all, the losses of each as PNG, and a page of examples of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from relvlm.errors import UserError
from relvlm.evals.examples import write_page
from relvlm.evals.files import write_atomic
from relvlm.evals.plots import plot_losses, read_log
from relvlm.evals.table import ModelRows, as_markdown, model_rows, read_results

EVALUATIONS = "eval"
LOG = "metrics.csv"


@dataclass(frozen=True)
class Report:
    """What was written; `table` is the Markdown text of table.md."""

    table: str
    files: tuple[Path, ...]


def report(runs: Sequence[Path], out: Path, names: Sequence[str] = ()) -> Report:
    """Write table.md, and for each run `<name>/<objective>.png` and `<name>/examples.html`, under `out`.

    A run's evaluations are the `metrics.json` files under its `eval` folder (under itself where it has none);
    its log is `metrics.csv`. Raises UserError for a run that has neither.
    """
    titles = list(names) or [run.resolve().name for run in runs]
    if len(set(titles)) != len(runs):
        raise UserError(f"runs: names {', '.join(titles)} are not one and different for each (give --names)")
    files: list[Path] = []
    rows: list[ModelRows] = []
    for run, title in zip(runs, titles, strict=True):
        results = read_results(_evaluations(run))
        if not results and not (run / LOG).is_file():
            raise UserError(f"{run}: neither {LOG} nor any metrics.json (give the folder of a run)")
        if (run / LOG).is_file():
            files += plot_losses(read_log(run / LOG), out / title)
        if results:
            files.append(_page(run, out / title / "examples.html"))
            rows.append(model_rows(title, results))
    table = as_markdown(*rows) if rows else ""
    if table:
        write_atomic(out / "table.md", [table])
        files.append(out / "table.md")
    return Report(table, tuple(files))


def _evaluations(run: Path) -> Path:
    return run / EVALUATIONS if (run / EVALUATIONS).is_dir() else run


def _page(run: Path, page: Path) -> Path:
    folders = sorted(path.parent for path in _evaluations(run).glob("**/metrics.json"))
    write_page(folders, page)
    return page
