"""When to stop: an arm's figures at the checkpoint that a dev figure chooses, over seeds (the paper's Figure 7)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from relvlm.evals.checkpoints.history import CHOOSERS
from relvlm.evals.figures.seeds import spread
from relvlm.study.soups import KINDS
from relvlm.study.tables import Lines, Results

Curves = Mapping[str, Sequence[tuple[int, float]]]  # by title: step and value
LAST, EACH = "the last step", "each figure by itself"


def selection_lines(results: Results, titles: Sequence[str]) -> Lines:
    """Mean and deviation of test figures, and of the step, by way of choosing; the header alone without curves.

    "each figure by itself" looks at the answers: what no rule can exceed.
    """
    titles = _over_steps(results, titles)
    lines = [["", "chosen by", "step", *titles]]
    for arm, seeds in results.items():
        curves = [_curves(result) for result in seeds.values()]
        there = [title for title in CHOOSERS if " dev" in title and all(title in each for each in curves)]
        if titles and _have(curves, titles):
            for place, way in enumerate([LAST, *there, EACH]):
                lines.append(["" if place else f"**{arm}**", way, *_line(curves, way, titles)])
    return lines


def soup_lines(results: Results, titles: Sequence[str]) -> Lines:
    """Averages of checkpoints beside the last one and the best one on dev, of the seeds that have averages."""
    titles = _over_steps(results, titles)
    lines = [["", "seeds", "what is taken", *titles]]
    for arm, seeds in results.items():
        found = [result for result in seeds.values() if "soups" in result]
        curves = [_curves(result) for result in found]
        found = found if titles and _have(curves, titles) else []
        for place, way in enumerate((LAST, CHOOSERS[0]) if found else ()):
            first = ["", ""] if place else [f"**{arm}**", str(len(found))]
            lines.append([*first, way, *_line(curves, way, titles)[1:]])
        kinds = [kind for kind in KINDS if found and all(kind in result["soups"] for result in found)]
        for kind in kinds:
            values = ([result["soups"][kind][title] for result in found] for title in titles)
            lines.append(["", "", f"{kind} average", *(spread(each).value for each in values)])
    return lines


def _over_steps(results: Results, titles: Sequence[str]) -> list[str]:
    """Those that have curves at all: recalls beyond 1 and calibrated figures have none."""
    known = {title for seeds in results.values() for result in seeds.values() for title in result["curves"]}
    return [title for title in titles if title in known]


def _have(curves: Sequence[Curves], titles: Sequence[str]) -> bool:
    return bool(curves) and all(title in each for title in titles for each in curves)


def _curves(result: Mapping[str, Any]) -> Curves:
    return {title: [(int(step), value) for step, value in curve] for title, curve in result["curves"].items()}


def _line(curves: Sequence[Curves], way: str, titles: Sequence[str]) -> list[str]:
    steps = [] if way == EACH else [float(_chosen(each, way)) for each in curves]
    step = f"{sum(steps) / len(steps):,.0f}" if steps else ""
    return [step, *(spread([_value(each, way, title) for each in curves]).value for title in titles)]


def _chosen(curves: Curves, way: str) -> int:
    """The step; the earliest of equals, as `relvlm report` chooses."""
    if way == LAST:
        return max(step for curve in curves.values() for step, _ in curve)
    return max(curves[way], key=lambda point: (point[1], -point[0]))[0]


def _value(curves: Curves, way: str, title: str) -> float:
    if way == EACH:
        return max(value for _, value in curves[title])
    return dict(curves[title])[_chosen(curves, way)]
