"""What a report says, section by section."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path

from relvlm.errors import UserError
from relvlm.evals.checkpoints.history import History
from relvlm.evals.checkpoints.selection import axes, best_lines, correlation_lines, matrix_lines, pareto_lines
from relvlm.evals.figures.bootstrap import DRAWS, Difference, paired
from relvlm.evals.figures.main_table import NO_SPREADS, ModelRows
from relvlm.evals.figures.seeds import Spread
from relvlm.evals.reporting.checkpoint_plots import plot_dynamics, plot_matrix, plot_pareto
from relvlm.evals.reporting.pages import Section
from relvlm.evals.reporting.relation_plots import MOST, by_relation, plot_relations
from relvlm.evals.reporting.run import Run
from relvlm.evals.results import cards_of, table_lines

Lines = list[list[str]]
CONTEXT = (
    "rule",
    "split",
    "k",
    "max_words",
    "max_tokens",
    "image_size",
    "dtype",
    "n_pairs",
    "images_missing",
    "images_damaged",
    "images_substituted",
)
FIGURES = ("model", "task", "figure", "value", "low95", "high95", *CONTEXT)


def main_table(rows: Sequence[ModelRows], spreads: Mapping[str, Mapping[str, Spread]] = NO_SPREADS) -> Section:
    """Laid out as the paper's Table 2."""
    note = f"Zero-shot, percent; 95% intervals by bootstrap ({DRAWS} draws of examples, or of images)."
    return Section("Results", note, (("", table_lines(*rows, spreads=spreads)),), ())


def checkpoints(histories: Sequence[History], out: Path) -> list[Section]:
    """Learning dynamics, which checkpoint to take, and the front of coarse against fine-grained."""
    dynamics = Section(
        "Learning dynamics",
        "Every checkpoint on every task; bands: 95% intervals; dotted: chance.",
        (("Checkpoints, and their figures", best_lines(histories)),),
        (plot_dynamics(histories, out / "dynamics.png"),),
    )
    choice = [
        Section(
            f"Choosing a checkpoint of {h.name}",
            "Choose by the task of the row, report the task of the column; bold: the column's best choice. Below: "
            f"Spearman's rank correlation of the tasks over {len(h.steps)} checkpoints.",
            (("Selection matrix", matrix_lines(h)), ("Rank correlation", correlation_lines(h))),
            (plot_matrix(h, out / h.name / "selection.png"),),
        )
        for h in histories
    ]
    return [dynamics, *choice, *_front(histories, out)]


def relations(runs: Sequence[Run], out: Path) -> list[Section]:
    """Accuracy at each relation, of the tasks whose annotations name one."""
    found: dict[str, dict[str, dict[str, tuple[int, int]]]] = {}
    for run in runs:
        for task, folder in run.folders.items():
            counts = by_relation(cards_of(folder))
            if counts:
                found.setdefault(task, {})[run.name] = counts
    plots = [plot_relations(by_run, task, out / f"relations_{task}.png") for task, by_run in found.items()]
    note = f"Bars: 95% intervals (Wilson); dotted: chance; in brackets: examples. The {MOST} most frequent relations."
    return [Section("Accuracy by relation", note, (), tuple(plots))] if plots else []


def paired_tests(runs: Sequence[Run]) -> list[Section]:
    """Each two models on the same examples: difference, its interval, p of the bootstrap and of McNemar's test."""
    found = []
    for first, second in combinations(runs, 2):
        lines = [["task", "figure", first.name, second.name, "difference", "95% interval", "p", "McNemar p"]]
        refused = []
        for task in (t for t in first.outcomes if t in second.outcomes):
            try:
                tests = paired(first.outcomes[task], second.outcomes[task])
            except UserError as error:
                refused.append(f"{task}: {error}")
                continue
            lines += [[task, name, *_difference(test)] for name, test in tests.items() if "kind/" not in name]
        note = f"Paired bootstrap of {DRAWS} draws, and McNemar's exact test where a figure is a share of examples; "
        note += "p is not corrected for the number of figures. " + " ".join(refused)
        found.append(Section(f"{second.name} against {first.name}", note, (("", lines),), (), folded=True))
    return found


def every_figure(runs: Sequence[Run]) -> Section:
    """Every figure of every task with its bootstrap interval, and the protocol of each task."""
    lines = [["model", "task", "figure", "value", "95% interval"]]
    lines += [[row[0], row[1], row[2], row[3], f"{row[4]}-{row[5]}"] for row in _figures(runs)]
    protocols = [["model", "task", *CONTEXT]]
    for run in runs:
        protocols += [[run.name, task, *_context(result)] for task, result in run.results.items()]
    note = "The rule of each task, and how it was scored; images missing or damaged: the figures are those of the rest."
    return Section("Every figure", note, (("Protocols", protocols), ("Figures", lines)), (), folded=True)


def figures_csv(runs: Sequence[Run]) -> str:
    """One line a figure: value, interval, and the protocol that it was scored under."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(FIGURES)
    writer.writerows(_figures(runs))
    return buffer.getvalue().rstrip("\n") if runs else ""


def _front(histories: Sequence[History], out: Path) -> list[Section]:
    """Of the runs that were scored on coarse and on fine-grained tasks; nothing where none was."""
    shown = [h for h in histories if _has_axes(h)]
    if not shown:
        return []
    tables = tuple((h.name, pareto_lines(h)) for h in shown)
    note = "Checkpoints that no other beats in one without losing in the other."
    plot = plot_pareto(shown, out / "pareto.png")
    return [Section("Coarse against fine-grained", note, tables, (plot,))]


def _has_axes(history: History) -> bool:
    try:
        return bool(axes(history))
    except UserError:
        return False


def _figures(runs: Sequence[Run]) -> Iterator[list[str]]:
    for run in runs:
        for task, found in run.intervals.items():
            context = _context(run.results[task])
            for name, x in found.items():
                yield [run.name, task, name, f"{x.value:.2f}", f"{x.low:.2f}", f"{x.high:.2f}", *context]


def _context(result: dict) -> list[str]:
    protocol = result.get("protocol", {})  # absent where `relvlm eval score` made it, of another program's scores
    return [str(protocol.get(name, result.get(name, ""))) for name in CONTEXT]


def _difference(test: Difference) -> list[str]:
    mcnemar = "" if test.mcnemar is None else f"{test.mcnemar:.3g}"
    interval = f"{test.low:+.1f} to {test.high:+.1f}"
    return [
        f"{test.first:.1f}",
        f"{test.second:.1f}",
        f"{test.second - test.first:+.1f}",
        interval,
        f"{test.p:.3g}",
        mcnemar,
    ]
