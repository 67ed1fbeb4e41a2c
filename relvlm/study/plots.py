"""Plots of a study: a figure over the steps, a line for each arm, a band over its seeds."""

from __future__ import annotations

from pathlib import Path

from relvlm.evals.reporting.bands import plot_bands
from relvlm.study.plan import slug
from relvlm.study.tables import Results


def plot(results: Results, titles: list[str], folder: Path, budget: str) -> list[Path]:
    """One PNG for each figure that has curves."""
    written = []
    for title in titles:
        curves = {arm: [seed["curves"].get(title, []) for seed in seeds.values()] for arm, seeds in results.items()}
        written.append(plot_bands(curves, title, folder / f"{slug(budget)}-{slug(title)}.png"))
    return [path for path in written if path]
