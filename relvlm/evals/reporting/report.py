"""Report of runs: tables with bootstrap intervals, plots over checkpoints, paired tests, losses, an error browser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from relvlm.errors import UserError
from relvlm.evals.figures.seeds import Spread
from relvlm.evals.files import write_atomic
from relvlm.evals.reporting import sections
from relvlm.evals.reporting.browser import PER_SIDE, Pictures, records_of
from relvlm.evals.reporting.explained import Pages, explained
from relvlm.evals.reporting.loss_plots import plot_losses, read_log
from relvlm.evals.reporting.over_seeds import fitting_spreads, names_of, over_seeds
from relvlm.evals.reporting.pages import Section, as_html, as_latex, as_markdown
from relvlm.evals.reporting.reference import Published, beside_published, read_reference
from relvlm.evals.reporting.run import Run, read_run
from relvlm.evals.results import table_lines
from relvlm.evals.tables import markdown


@dataclass(frozen=True)
class Report:
    """What was written; `table` is the Markdown text of table.md."""

    table: str
    files: tuple[Path, ...]


def report(
    runs: Sequence[Path],
    out: Path,
    names: Sequence[str] = (),
    per_side: int = PER_SIDE,
    reference: Path | None = None,
    explain: int = 0,
    spread: Path | None = None,
) -> Report:
    """Write report.html, report.md, report.tex, table.md, figures.csv and the plots under `out`.

    A run's evaluations are the `metrics.json` files under its `eval` folder (under itself where it has none), those
    of its checkpoints under `checkpoints_eval`; its log is `metrics.csv`. `per_side`: examples in the browser, of
    each piece, right and wrong. `reference`: a file of published figures, to stand beside one's own. `explain`: of each
    task so many of the worst errors get a page under `out`/explain on where the model looked, for which its checkpoint
    in the run is read. `spread`: a study's results, whose spreads over seeds stand under the runs of their names that
    were trained alike.
    Raises UserError for a run that has none of these.
    """
    published = read_reference(reference) if reference else {}
    read, seeds = _read(runs, names)
    spreads = fitting_spreads(spread, {run.name: root for run, root in zip(read, runs, strict=True)}) if spread else {}
    evaluated = [run for run in read if run.results]
    table = markdown(table_lines(*(run.rows for run in evaluated), spreads=spreads)) if evaluated else ""
    parts = ([over_seeds(seeds, out)] if seeds else []) + _sections(read, out, published, spreads)
    pictures, pages = Pictures(), _pages(runs, read, out, explain)
    examples = [
        e for run in evaluated for e in records_of(run.name, run.folders.values(), pictures, per_side, pages[run.name])
    ]
    texts = {
        "table.md": table,
        "figures.csv": sections.figures_csv(evaluated),
        "report.md": as_markdown(parts, out),
        "report.tex": as_latex(parts),
        "report.html": as_html(parts, examples, pictures),
    }
    written = {out / name: text for name, text in texts.items() if text}
    for path, text in written.items():
        write_atomic(path, [text])
    explanations = [out / page for of_run in pages.values() for of_task in of_run.values() for page in of_task.values()]
    return Report(table, (*(path for part in parts for path in part.plots), *explanations, *written))


def _read(runs: Sequence[Path], names: Sequence[str]) -> tuple[list[Run], dict[str, dict[int, Run]]]:
    """Every run under its title; and by name and seed those that share a name."""
    if names and len(names) != len(runs):
        raise UserError(f"--names: {len(names)} for {len(runs)} runs (give one for each; runs of one name are seeds)")
    for name in names:
        if not name.strip() or Path(name).is_absolute() or ".." in Path(name).parts:
            raise UserError(f"--names: {name!r}: no name for a row and a folder of plots (give words)")
    given = list(names) or [run.resolve().name for run in runs]
    if not names and len(set(given)) != len(runs):
        raise UserError(f"runs: folders {', '.join(given)} are not different (give --names; one name for all seeds)")
    titles, seeds = names_of(runs, given)
    read = [read_run(run, title) for run, title in zip(runs, titles, strict=True)]
    return read, {name: {seed: read[place] for seed, place in sorted(found.items())} for name, found in seeds.items()}


def _pages(roots: Sequence[Path], runs: Sequence[Run], out: Path, number: int) -> dict[str, dict[Path, Pages]]:
    """By run, then by folder of results."""
    return {run.name: explained(run, root, out, number) for root, run in zip(roots, runs, strict=True)}


def _sections(
    runs: Sequence[Run],
    out: Path,
    published: Mapping[str, Published],
    spreads: Mapping[str, Mapping[str, Spread]],
) -> list[Section]:
    evaluated = [run for run in runs if run.results]
    histories = [run.history for run in runs if run.history]
    parts: list[Section] = []
    if evaluated:
        parts.append(sections.main_table([run.rows for run in evaluated], spreads))
        parts += beside_published(evaluated, published)
    if histories:
        parts += sections.checkpoints(histories, out)
    parts += sections.relations(evaluated, out)
    parts += sections.paired_tests(evaluated)
    if evaluated:
        parts.append(sections.every_figure(evaluated))
    for run in runs:
        if run.log:
            plots = plot_losses(read_log(run.log), out / run.name)
            parts.append(Section(f"Losses of {run.name}", "Smoothed; pale: each step.", (), tuple(plots)))
    return parts
