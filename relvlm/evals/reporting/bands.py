"""A figure over the steps of training, a line for each model, a band over its seeds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

Curve = Sequence[tuple[float, float]]  # step and value
Points = list[tuple[float, float, float, float]]  # step, mean, lowest, highest


def band(curves: Sequence[Curve]) -> Points:
    """Over the curves of several seeds, at the steps that all of them have."""
    values: dict[float, list[float]] = defaultdict(list)
    for curve in curves:
        for step, value in curve:
            values[step].append(value)
    whole = {step: found for step, found in values.items() if len(found) == len(curves)}
    return [(step, sum(found) / len(found), min(found), max(found)) for step, found in sorted(whole.items())]


def plot_bands(models: Mapping[str, Sequence[Curve]], title: str, path: Path) -> Path | None:
    """A PNG at `path`; None, and no file, where no model has a curve."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 3.5), dpi=120)
    for name, curves in models.items():
        if points := band(curves):
            steps, mean, low, high = zip(*points, strict=True)
            (line,) = axes.plot(steps, mean, marker=".", label=f"{name} ({len(curves)} seeds)")
            axes.fill_between(steps, low, high, alpha=0.2, color=line.get_color())
    drawn = bool(axes.lines)
    if drawn:
        axes.set(xlabel="step", ylabel="%", title=f"{title} (band: lowest to highest seed)")
        axes.grid(alpha=0.3)
        axes.legend()
        figure.tight_layout()
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
    pyplot.close(figure)
    return path if drawn else None
