"""Bootstrap intervals of every figure, and paired tests between two models on the same examples.

Legend: U units, W draws, F figures.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from relvlm.errors import UserError
from relvlm.evals.figures.outcomes import Outcomes

DRAWS = 1000
CHUNK = 100


@dataclass(frozen=True)
class Interval:
    """A figure in percent and its 95% percentile interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """Second model minus first, with the 95% interval of the paired bootstrap and its two-sided p.

    `mcnemar`: exact two-sided p over the examples on which the two disagree; None where a figure is no share of
    examples (macro averages, recalls over several texts an image).
    """

    first: float
    second: float
    low: float
    high: float
    p: float
    mcnemar: float | None


def intervals(outcomes: Outcomes, draws: int = DRAWS, seed: int = 0) -> dict[str, Interval]:
    """Of every figure; the units are drawn with replacement."""
    drawn = _draws(outcomes, draws, seed)
    return {name: Interval(float(value[0]), *_percentiles(drawn[name])) for name, value in outcomes.figures().items()}


def paired(first: Outcomes, second: Outcomes, draws: int = DRAWS, seed: int = 0) -> dict[str, Difference]:
    """Of every figure that both have; the same units are drawn for both. UserError where they are of other examples."""
    second = _aligned(first, second)
    drawn = _draws(first, draws, seed), _draws(second, draws, seed)
    value = first.figures(), second.figures()
    found = {}
    for name in value[0].keys() & value[1].keys():
        difference = drawn[1][name] - drawn[0][name]
        found[name] = Difference(
            float(value[0][name][0]),
            float(value[1][name][0]),
            *_percentiles(difference),
            _two_sided(difference),
            _mcnemar_of(first, second, name),
        )
    return {name: found[name] for name in value[0] if name in found}


def mcnemar(only_first: int, only_second: int) -> float:
    """Exact two-sided p that two models are equally often the only right one (McNemar, 1947; binomial)."""
    n, k = only_first + only_second, min(only_first, only_second)
    log = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])
    terms = log[n] - log[: k + 1] - log[n - np.arange(k + 1)] - n * np.log(2)
    return float(min(1.0, 2 * np.exp(terms).sum()))


def _draws(outcomes: Outcomes, draws: int, seed: int) -> dict[str, np.ndarray]:
    """(W,) of each figure."""
    parts = [outcomes.figures(weights) for weights in _weights(len(outcomes.units), draws, seed)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _weights(units: int, draws: int, seed: int) -> Iterator[np.ndarray]:
    """How often each unit is drawn, (up to CHUNK, U) at a time; the same for the same seed."""
    rng = np.random.default_rng(seed)
    for start in range(0, draws, CHUNK):
        drawn = rng.integers(units, size=(min(CHUNK, draws - start), units))
        yield np.stack([np.bincount(row, minlength=units) for row in drawn]).astype(float)


def _percentiles(values: np.ndarray) -> tuple[float, float]:
    low, high = np.nanpercentile(values, [2.5, 97.5]) if not np.isnan(values).all() else (np.nan, np.nan)
    return float(low), float(high)


def _two_sided(difference: np.ndarray) -> float:
    """Twice the smaller share of draws on either side of no difference; at least 1 / (draws + 1).

    Of the draws that have the figure: a rare one's examples may all be absent from a draw.
    """
    below, above = (difference <= 0).sum() + 1, (difference >= 0).sum() + 1
    return float(min(1.0, 2 * min(below, above) / ((~np.isnan(difference)).sum() + 1)))


def _mcnemar_of(first: Outcomes, second: Outcomes, name: str) -> float | None:
    if name not in first.names or name not in second.names:
        return None
    a, b = (o.right[:, o.names.index(name)] for o in (first, second))
    counted = first.counted[:, first.names.index(name)]
    if not np.isin(counted, (0, 1)).all() or (counted != second.counted[:, second.names.index(name)]).any():
        return None
    return mcnemar(int(((a > b) & (counted > 0)).sum()), int(((b > a) & (counted > 0)).sum()))


def _aligned(first: Outcomes, second: Outcomes) -> Outcomes:
    """The second one's rows in the first one's order."""
    place = {unit: i for i, unit in enumerate(second.units)}
    if place.keys() != set(first.units):
        odd = sorted(place.keys() ^ set(first.units))[0]
        raise UserError(f"paired test: example {odd!r} is scored by one of the two only (score the same files)")
    order = [place[unit] for unit in first.units]
    return Outcomes(first.units, second.names, second.right[order], second.counted[order], second.derived)


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Rank correlation, ties at their mean rank; NaN where one of the two is constant."""
    a, b = _mean_ranks(x), _mean_ranks(y)
    a, b = a - a.mean(), b - b.mean()
    scale = np.sqrt((a * a).sum() * (b * b).sum())
    return float((a * b).sum() / scale) if scale else float("nan")


def _mean_ranks(values: np.ndarray) -> np.ndarray:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]
