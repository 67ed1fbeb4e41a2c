"""Figures of evaluation, all in percent. Pure functions of scores."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, median

Figures = dict[str, object]


def percent(right: int, n: int) -> float:
    """Share of `right` among `n`; raises ZeroDivisionError when there is nothing to judge."""
    return 100.0 * right / n


def wilson(right: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """95% interval of a proportion (Wilson, 1927), in percent."""
    share = right / n
    centre = share + z * z / (2 * n)
    spread = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 100 / (1 + z * z / n)
    return max(0.0, (centre - spread) * scale), min(100.0, (centre + spread) * scale)


def accuracy(outcomes: Sequence[bool], groups: Mapping[str, Sequence[bool]] | None = None) -> Figures:
    """`overall` with `n` and `interval95`, then each group's accuracy, `counts` and `intervals95`."""
    right, n = sum(outcomes), len(outcomes)
    figures: Figures = {"overall": percent(right, n), "n": n, "interval95": list(wilson(right, n))}
    for name, flags in (groups or {}).items():
        figures[name] = percent(sum(flags), len(flags))
    if groups:
        figures["counts"] = {name: len(flags) for name, flags in groups.items()}
        figures["intervals95"] = {name: list(wilson(sum(f), len(f))) for name, f in groups.items()}
    return figures


def held_out(outcomes: Sequence[bool], rows: Sequence[Mapping[str, object]]) -> Figures:
    """Accuracy on the examples marked `held_out`; {} where none is."""
    chosen = [right for right, row in zip(outcomes, rows, strict=True) if row.get("held_out")]
    return {"held_out": accuracy(chosen)} if chosen else {}


def macro(groups: Mapping[str, Sequence[bool]]) -> float:
    """Mean of the groups' accuracies."""
    return fmean(percent(sum(flags), len(flags)) for flags in groups.values())


def thresholded(scores: Sequence[float], labels: Sequence[bool], threshold: float = 0.5) -> list[bool]:
    """Right where score >= threshold agrees with the label (VSR's rule)."""
    return [(score >= threshold) == label for score, label in zip(scores, labels, strict=True)]


def median_threshold(scores: Sequence[float]) -> float:
    """The threshold that calls half of the pairs true: it sees scores, never labels."""
    return median(scores)


def best_threshold(scores: Sequence[float], labels: Sequence[bool]) -> float:
    """Threshold of highest accuracy; the middle one of the equally good (to be chosen on a dev set)."""
    ordered = sorted(zip(scores, labels, strict=True))
    right = sum(labels)  # threshold below every score: all called true
    best, cuts = right, [ordered[0][0]]
    for i, (score, label) in enumerate(ordered):
        right += -1 if label else 1
        following = ordered[i + 1][0] if i + 1 < len(ordered) else math.nextafter(score, math.inf)
        if following == score:
            continue
        if right > best:
            best, cuts = right, []
        if right == best:
            cuts.append((score + following) / 2 if i + 1 < len(ordered) else following)
    return cuts[len(cuts) // 2]
