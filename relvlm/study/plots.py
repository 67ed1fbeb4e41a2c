"""Plots of a study: a figure over the steps, a line for each arm, a band over its seeds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from relvlm.study.plan import slug
from relvlm.study.tables import Results

Points = list[tuple[float, float, float, float]]  # step, mean, lowest, highest


def curve(seeds: Mapping[int, Mapping[str, Any]], title: str) -> Points:
    """Over the seeds, at the steps that all of them have."""
    values: dict[float, list[float]] = defaultdict(list)
    for result in seeds.values():
        for step, value in result["curves"].get(title, []):
            values[step].append(value)
    whole = {step: found for step, found in values.items() if len(found) == len(seeds)}
    return [(step, sum(found) / len(found), min(found), max(found)) for step, found in sorted(whole.items())]


def plot(results: Results, titles: list[str], folder: Path, budget: str) -> list[Path]:
    """One PNG for each figure that has curves."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    written = []
    for title in titles:
        figure, axes = pyplot.subplots(figsize=(6, 3.5), dpi=120)
        for name, seeds in results.items():
            if points := curve(seeds, title):
                steps, mean, low, high = zip(*points, strict=True)
                (line,) = axes.plot(steps, mean, marker=".", label=f"{name} ({len(seeds)} seeds)")
                axes.fill_between(steps, low, high, alpha=0.2, color=line.get_color())
        if axes.lines:
            axes.set(xlabel="step", ylabel="%", title=f"{title} (band: lowest to highest seed)")
            axes.grid(alpha=0.3)
            axes.legend()
            figure.tight_layout()
            folder.mkdir(parents=True, exist_ok=True)
            written.append(folder / f"{slug(budget)}-{slug(title)}.png")
            figure.savefig(written[-1])
        pyplot.close(figure)
    return written
