"""Figures of evaluation, all in percent. Pure functions of scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean, median

Figures = dict[str, object]
COMBINE: dict[str, Callable[[Sequence[float]], float]] = {"mean": fmean, "min": min}


def percent(right: int, n: int) -> float:
    """Share of `right` among `n`; raises ZeroDivisionError when there is nothing to judge."""
    return 100.0 * right / n


def share(flags: Sequence[bool]) -> float:
    """Percent of the flags that are set; raises ZeroDivisionError when there is none."""
    return percent(sum(flags), len(flags))


def interval95(flags: Sequence[bool]) -> list[float]:
    """Wilson's interval of `share`, as JSON has it."""
    return list(wilson(sum(flags), len(flags)))


def wilson(right: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """95% interval of a proportion (Wilson, 1927), in percent."""
    share = right / n
    centre = share + z * z / (2 * n)
    spread = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 100 / (1 + z * z / n)
    return max(0.0, (centre - spread) * scale), min(100.0, (centre + spread) * scale)


def accuracy(flags: Sequence[bool], groups: Mapping[str, Sequence[bool]] | None = None) -> Figures:
    """`overall` with `n` and `interval95`, then each group's accuracy, `counts` and `intervals95`."""
    figures: Figures = {"overall": share(flags), "n": len(flags), "interval95": interval95(flags)}
    for name, part in (groups or {}).items():
        figures[name] = share(part)
    if groups:
        figures["counts"] = {name: len(part) for name, part in groups.items()}
        figures["intervals95"] = {name: interval95(part) for name, part in groups.items()}
    return figures


def combined(how: str, parts: Sequence[Sequence[bool]]) -> float:
    """The mean ("mean": each part weighs the same) or the least ("min") of the parts' accuracies."""
    return COMBINE[how]([share(flags) for flags in parts])


def agrees(score: float, label: bool, threshold: float = 0.5) -> bool:
    """Right where score >= threshold agrees with the label (VSR's rule)."""
    return (score >= threshold) == label


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
