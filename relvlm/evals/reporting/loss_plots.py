"""PNG plots of a run's losses from its CSV log."""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from relvlm.engine.columns import SECONDS, WORDS
from relvlm.errors import UserError

Curve = list[tuple[int, float]]
SMOOTHING = 0.9
NOT_CURVES = ("step", *WORDS)


def read_log(path: Path) -> dict[str, Curve]:
    """(step, value) of each column, blank cells left out; raises UserError naming line and column."""
    if not path.is_file():
        raise UserError(f"{path}: no such log (give the folder of a run)")
    curves: dict[str, Curve] = defaultdict(list)
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        if "step" not in (reader.fieldnames or ()):
            raise UserError(f"{path}: step: no such column (this is no training log)")
        for number, row in enumerate(reader, 2):
            for column, cell in row.items():
                if column is None:
                    raise UserError(f"{path}: line {number}: more fields than the header has (is the log damaged?)")
                if column not in NOT_CURVES and cell:
                    curves[column].append(_point(row["step"], cell, f"{path}: line {number}: {column}"))
    return dict(curves)


def plot_losses(curves: Mapping[str, Curve], folder: Path) -> list[Path]:
    """One PNG for each objective (the part of a column after its last `/`), a line for each kind of batch.

    Where a step's time goes is one PNG, too.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    written = []
    for objective, lines in sorted(_by_objective(curves).items()):
        figure, axes = pyplot.subplots(figsize=(6, 3.5), dpi=120)
        for label, curve in lines.items():
            steps, values = [s for s, _ in curve], [v for _, v in curve]
            (raw,) = axes.plot(steps, values, alpha=0.25)
            axes.plot(steps, smooth(values), color=raw.get_color(), label=label)
        axes.set(xlabel="step", ylabel=objective, title=objective)
        axes.grid(alpha=0.3)
        axes.legend()
        figure.tight_layout()
        path = folder / f"{objective}.png"
        folder.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
        pyplot.close(figure)
        written.append(path)
    return written


def smooth(values: Sequence[float]) -> list[float]:
    """Exponential moving average without the bias towards its start; a value that is not finite is not in it.

    Such are those of skipped steps: one of them would be in all averages after it.
    """
    average, weight, result = 0.0, 0.0, []
    for value in values:
        if math.isfinite(value):
            average = SMOOTHING * average + (1 - SMOOTHING) * value
            weight = SMOOTHING * weight + (1 - SMOOTHING)
        result.append(average / weight if weight else math.nan)
    return result


def _by_objective(curves: Mapping[str, Curve]) -> dict[str, dict[str, Curve]]:
    grouped: dict[str, dict[str, Curve]] = defaultdict(dict)
    for column, curve in curves.items():
        kind, _, objective = column.rpartition("/")
        if column in SECONDS:
            kind, objective = column, "seconds"
        grouped[objective][kind or objective] = curve
    return grouped


def _point(step: str, cell: str, where: str) -> tuple[int, float]:
    try:
        return int(step), float(cell)
    except ValueError as error:
        raise UserError(f"{where}: {cell!r} at step {step!r} is no number (is the log damaged?)") from error
