"""What several seeds say: mean and spread, an interval that holds seeds and examples, tests over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev


@dataclass(frozen=True)
class Spread:
    """Of a figure over seeds, in percent. `sd` and interval are None for one seed alone."""

    mean: float
    sd: float | None
    low: float | None
    high: float | None
    seeds: int

    @property
    def value(self) -> str:
        """Mean and deviation, as a table has them."""
        return f"**{self.mean:.1f}**" + (f" ± {self.sd:.1f}" if self.sd is not None else "")

    @property
    def interval(self) -> str:
        return "" if self.low is None or self.high is None else f"{self.low:.1f}-{self.high:.1f}"


@dataclass(frozen=True)
class Test:
    """Second arm minus first over the seeds that both have: mean, 95% interval, two-sided p of a paired t-test."""

    difference: float
    low: float
    high: float
    p: float
    seeds: int


def spread(values: Sequence[float], intervals: Sequence[tuple[float, float]] = ()) -> Spread:
    """`intervals`: each run's own 95% interval over examples, if known.

    The seeds are scored on the same examples, so what these add does not shrink with more seeds: the variance of the
    mean is that over seeds divided by their number, plus that over examples.
    """
    n, mean = len(values), fmean(values)
    if n < 2:
        return Spread(mean, None, None, None, n)
    over_examples = fmean([(high - low) / (2 * 1.96) for low, high in intervals]) if intervals else 0.0
    sd = stdev(values)
    half = math.hypot(t_quantile(n - 1) * sd / math.sqrt(n), 1.96 * over_examples)
    return Spread(mean, sd, max(mean - half, 0.0), min(mean + half, 100.0), n)


def paired(first: Sequence[float], second: Sequence[float]) -> Test | None:
    """Seed by seed; None for fewer than two seeds.

    Differences that are all equal, as figures of few examples may be by chance, have no spread to test by: their p is
    that of so many equal signs, and they have no interval (both ends are the mean).
    """
    differences = [b - a for a, b in zip(first, second, strict=True)]
    n = len(differences)
    if n < 2:
        return None
    mean, error = fmean(differences), stdev(differences) / math.sqrt(n)
    half = t_quantile(n - 1) * error
    p = t_two_sided(mean / error, n - 1) if error else 2.0 ** (1 - n) if mean else 1.0
    return Test(mean, mean - half, mean + half, p, n)


def holm(values: Sequence[float]) -> list[float]:
    """p values corrected for their number (Holm, 1979), in the order given."""
    order = sorted(range(len(values)), key=values.__getitem__)
    corrected, largest = [0.0] * len(values), 0.0
    for place, i in enumerate(order):
        largest = max(largest, min(1.0, values[i] * (len(values) - place)))
        corrected[i] = largest
    return corrected


def comparison_lines(tests: Sequence[tuple[str, str, Test]]) -> list[list[str]]:
    """A table of tests, each with the names of comparison and figure; p corrected for the number of its lines."""
    corrected = holm([test.p for *_, test in tests])
    lines = [["comparison", "figure", "difference", "95% interval", "p", "p, corrected", "seeds"]]
    for (compared, figure, test), p in zip(tests, corrected, strict=True):
        bold = "**" if p < 0.05 else ""
        interval = f"{test.low:+.1f} to {test.high:+.1f}" if test.low < test.high else ""
        shown = [f"{bold}{test.difference:+.1f}{bold}", interval, f"{test.p:.3g}", f"{bold}{p:.3g}{bold}"]
        lines.append([compared, figure, *shown, str(test.seeds)])
    return lines


def t_two_sided(t: float, df: int) -> float:
    """P(|T| >= |t|) of Student's t with whole degrees of freedom (Abramowitz and Stegun, 26.7.3 and 26.7.4)."""
    angle = math.atan2(abs(t), math.sqrt(df))
    cosine = math.cos(angle) ** 2
    term, total = 1.0, 0.0
    for k in range(2 + df % 2, df + df % 2 + 1, 2):
        total += term
        term *= cosine * (k - 1) / k
    if df % 2 == 0:
        return 1 - math.sin(angle) * total
    return 1 - 2 / math.pi * (angle + math.sin(angle) * math.cos(angle) * total)


def t_quantile(df: int, p: float = 0.05) -> float:
    """The t that |T| exceeds with probability p."""
    low, high = 0.0, 1.0
    while t_two_sided(high, df) > p:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if t_two_sided(middle, df) > p else (low, middle)
    return (low + high) / 2
