"""Which checkpoint? Selection matrix (the paper's Figure 7), rank correlations, best by a dev task, Pareto front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from relvlm.errors import UserError
from relvlm.evals.checkpoints.history import History, axis_titles, chooser
from relvlm.evals.figures.bootstrap import spearman
from relvlm.evals.figures.main_table import Cell

Lines = list[list[str]]


def matrix(history: History) -> np.ndarray:
    """(T, T): choose the checkpoint that is best by task i, report its figure of task j."""
    titles = history.titles
    return np.array([[history.cells[history.best(i)][j].value for j in titles] for i in titles])


def matrix_lines(history: History) -> Lines:
    """The selection matrix; a column's best is bold."""
    titles, values = history.titles, matrix(history)
    lines = [["chosen by", "step", *titles]]
    for title, row in zip(titles, values, strict=True):
        cells = [_cell(value, value == best) for value, best in zip(row, values.max(0), strict=True)]
        lines.append([title, str(history.steps[history.best(title)]), *cells])
    return lines


def correlation_lines(history: History) -> Lines:
    """Spearman's rank correlation over the checkpoints of each two tasks; "-" where a task does not vary."""
    titles = history.titles
    lines = [["Spearman", *titles]]
    for a in titles:
        found = [spearman(np.array(history.values(a)), np.array(history.values(b))) for b in titles]
        lines.append([a, *("-" if np.isnan(r) else f"{r:.2f}" for r in found)])
    return lines


def best_lines(histories: Sequence[History]) -> Lines:
    """Each run's checkpoint that is best by the dev task, its last one, and each task's own best ("oracle")."""
    titles = [t for h in histories for t in h.titles]
    titles = list(dict.fromkeys(titles))
    lines = [["", "step", *titles]]
    for history in histories:
        by = chooser(history)
        places = {f"best by {by}": history.best(by)} if by else {}
        for what, place in (places | {"last": len(history.steps) - 1}).items():
            cells = history.cells[place]
            shown = [_with_interval(cells, t) for t in titles]
            lines.append([f"{history.name}, {what}", str(history.steps[place]), *shown])
        oracle = [f"{max(history.values(t)):.1f}" if t in history.titles else "" for t in titles]
        lines.append([f"{history.name}, best by each", "", *oracle])
    return lines


def axes(history: History, coarse: Sequence[str] = (), fine: Sequence[str] = ()) -> tuple[list[str], list[str]]:
    """The figures whose means make the two axes: given ones, or all known ones; UserError where there is none."""
    return _axis(history, "coarse", coarse), _axis(history, "fine", fine)


def pareto(x: Sequence[float], y: Sequence[float]) -> list[int]:
    """Places of the points that no other beats on one axis without losing on the other; equal points all stay."""
    points = list(zip(x, y, strict=True))

    def beaten(p: tuple[float, float]) -> bool:
        return any(q[0] >= p[0] and q[1] >= p[1] and q != p for q in points)

    return [i for i, p in enumerate(points) if not beaten(p)]


def pareto_lines(history: History, coarse: Sequence[str] = (), fine: Sequence[str] = ()) -> Lines:
    """The checkpoints on the front, by step."""
    by_coarse, by_fine = axes(history, coarse, fine)
    x, y = history.mean(by_coarse), history.mean(by_fine)
    lines = [[history.name, f"coarse: {', '.join(by_coarse)}", f"fine: {', '.join(by_fine)}"]]
    return lines + [[str(history.steps[i]), f"{x[i]:.1f}", f"{y[i]:.1f}"] for i in pareto(x, y)]


def _axis(history: History, name: Literal["coarse", "fine"], given: Sequence[str]) -> list[str]:
    unknown = [title for title in given if title not in history.titles]
    chosen = list(given) or [title for title in axis_titles(name) if title in history.titles]
    if unknown or not chosen:
        raise UserError(
            f"{history.name}: --{name}: {', '.join(unknown) or 'no such figure'}: its checkpoints have "
            f"{', '.join(history.titles)}"
        )
    return chosen


def _cell(value: float, bold: bool) -> str:
    return f"**{value:.1f}**" if bold else f"{value:.1f}"


def _with_interval(cells: Mapping[str, Cell], title: str) -> str:
    cell = cells.get(title)
    if cell is None:
        return ""
    return f"{cell.value:.1f}" + (f" ({cell.interval[0]:.1f}-{cell.interval[1]:.1f})" if cell.interval else "")
