"""Plots of a study: a figure over the steps, a line for each arm with a band over its seeds; all figures over cost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from relvlm.evals.reporting.bands import plot_bands
from relvlm.study.plan import slug
from relvlm.study.tables import Results, over_seeds


def plot(results: Results, titles: Sequence[str], folder: Path, budget: str) -> list[Path]:
    """One PNG for each figure that has curves, and one of figures against FLOPs."""
    written = []
    for title in titles:
        curves = {arm: [seed["curves"].get(title, []) for seed in seeds.values()] for arm, seeds in results.items()}
        written.append(plot_bands(curves, title, folder / f"{slug(budget)}-{slug(title)}.png"))
    return [path for path in (*written, _plot_cost(results, titles, folder / f"{slug(budget)}-cost.png")) if path]


def _plot_cost(results: Results, titles: Sequence[str], path: Path) -> Path | None:
    """A panel a figure, a point an arm: mean and deviation against its FLOPs; None where all cost the same."""
    spent = {arm: next(iter(seeds.values()))["tflop"] for arm, seeds in results.items() if seeds}
    if len(set(spent.values())) < 2:
        return None
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(titles), figsize=(3 * len(titles), 3.2), dpi=120, squeeze=False)
    for axes, title in zip(panels[0], titles, strict=True):
        for arm, tflop in spent.items():
            found = over_seeds(results[arm], title)
            axes.errorbar([tflop], [found.mean], yerr=[found.sd or 0], marker="o", capsize=3, label=arm)
        axes.set(title=title, xlabel="TFLOP")
        axes.grid(alpha=0.3)
    panels[0][0].set_ylabel("%")
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=len(labels), frameon=False)
    figure.tight_layout(rect=(0, 0.1, 1, 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    pyplot.close(figure)
    return path
