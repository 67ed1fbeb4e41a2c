"""PNG plots over the checkpoints of runs: learning dynamics (the paper's Figure 6), selection matrix, Pareto front."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from relvlm.evals.checkpoints.history import History, common_titles
from relvlm.evals.checkpoints.selection import axes, matrix, pareto

PER_ROW = 4


def plot_dynamics(histories: Sequence[History], path: Path) -> Path:
    """A panel for each figure, a line with its 95% band for each run, chance dotted."""
    titles = common_titles(histories)
    rows = -(-len(titles) // PER_ROW)
    figure, panels = _figure(
        figsize=(3.2 * min(PER_ROW, len(titles)), 2.5 * rows), rows=rows, columns=min(PER_ROW, len(titles))
    )
    for title, panel in zip(titles, panels, strict=False):
        for history in histories:
            if title in history.titles:
                _line(panel, history, title)
        panel.set_title(title, fontsize=9)
        panel.grid(alpha=0.3)
        panel.tick_params(labelsize=7)
    for panel in panels[len(titles) :]:
        panel.axis("off")
    panels[0].legend(fontsize=7)
    return _saved(figure, path)


def plot_matrix(history: History, path: Path) -> Path:
    """Rows: the task that chooses; columns: the task reported; colour: points lost to the column's best checkpoint."""
    titles, values = history.titles, matrix(history)
    best = [max(history.values(title)) for title in titles]
    size = 1.4 + 0.75 * len(titles)
    figure, (panel,) = _figure(figsize=(size + 1, size * 0.8))
    panel.imshow(
        values - best,
        cmap="RdYlGn",
        alpha=0.6,
        aspect="auto",
        vmin=min(-1.0, float((values - best).min())),
        vmax=0,
    )
    for i, row in enumerate(values):
        for j, value in enumerate(row):
            panel.text(j, i, f"{value:.1f}", ha="center", va="center", fontsize=7)
    panel.set_xticks(range(len(titles)), titles, rotation=45, ha="right", fontsize=7)
    panel.set_yticks(range(len(titles)), titles, fontsize=7)
    panel.set(xlabel="reported", ylabel="chosen by", title=history.name)
    return _saved(figure, path)


def plot_pareto(histories: Sequence[History], path: Path, coarse: Sequence[str] = (), fine: Sequence[str] = ()) -> Path:
    """Every checkpoint by its coarse and fine-grained mean; the front of each run is a line, with its steps."""
    figure, (panel,) = _figure(figsize=(5.5, 4))
    for history in histories:
        by_coarse, by_fine = axes(history, coarse, fine)
        x, y = history.mean(by_coarse), history.mean(by_fine)
        front = sorted(pareto(x, y), key=lambda i: x[i])
        points = panel.scatter(x, y, s=14, alpha=0.5)
        colour = points.get_facecolor()[0][:3]
        panel.plot([x[i] for i in front], [y[i] for i in front], color=colour, label=history.name)
        for i in front:
            panel.annotate(str(history.steps[i]), (x[i], y[i]), fontsize=7)
    panel.set(xlabel="coarse (mean of retrieval R@1)", ylabel="fine-grained (mean accuracy)", title="Pareto front")
    panel.grid(alpha=0.3)
    panel.legend(fontsize=7)
    return _saved(figure, path)


def _line(panel: Any, history: History, title: str) -> None:
    values = history.values(title)
    (line,) = panel.plot(history.steps, values, marker="o", markersize=2.5, linewidth=1.2, label=history.name)
    bands = [cells[title].interval or (value, value) for cells, value in zip(history.cells, values, strict=True)]
    low, high = zip(*bands, strict=True)
    panel.fill_between(history.steps, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
    chance = history.cells[0][title].chance
    if chance is not None:
        panel.axhline(chance, color="grey", linestyle=":", linewidth=0.8)


def _figure(figsize: tuple[float, float], rows: int = 1, columns: int = 1) -> tuple[Any, list[Any]]:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(rows, columns, figsize=figsize, dpi=110, squeeze=False)
    return figure, list(panels.flat)


def _saved(figure: Any, path: Path) -> Path:
    from matplotlib import pyplot

    path.parent.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(path)
    pyplot.close(figure)
    return path
