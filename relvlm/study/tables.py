"""Tables of a study: each arm's figures over its seeds, and whether arms differ."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from relvlm.errors import UserError
from relvlm.evals.figures.seeds import Spread, comparison_lines, paired, spread
from relvlm.evals.tasks.registry import titles
from relvlm.study.plan import Budget, Plan

Results = Mapping[str, Mapping[int, Mapping[str, Any]]]  # by arm and seed: what runs.py keeps
Lines = list[list[str]]


def read_results(plan: Plan, budget: Budget) -> Results:
    """Those that are there; UserError for one that cannot be read."""
    found: dict[str, dict[int, Mapping[str, Any]]] = {arm.name: {} for arm in plan.arms}
    for path in sorted((Path(plan.results) / "runs").glob("*.json")):
        try:
            result = json.loads(path.read_text())
            here = result["budget"] == budget.name and result["arm"] in found and result["seed"] in plan.seeds
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}: not readable: {error} (remove it, and the run is made again)") from error
        if here:
            found[result["arm"]][result["seed"]] = result
    return {name: dict(sorted(seeds.items())) for name, seeds in found.items()}


def figures_of(plan: Plan, results: Results) -> list[str]:
    """Those that the plan asks for, else all that every result has; in the order of the main table."""
    there = [set(result["figures"]) for seeds in results.values() for result in seeds.values()]
    common = set.intersection(*there) if there else set()
    if absent := [title for title in plan.figures if there and title not in common]:
        raise UserError(f"figures: {', '.join(absent)}: not among those of every run: {', '.join(sorted(common))}")
    return plan.figures or [title for title in titles() if title in common]


def over_seeds(seeds: Mapping[int, Mapping[str, Any]], title: str, shared: bool = True) -> Spread:
    """Of one figure of one arm; `shared`: whether the seeds have the same examples, as folds have not."""
    cells = [result["figures"][title] for result in seeds.values()]
    return spread([c["value"] for c in cells], [c["interval"] for c in cells if c["interval"] and shared])


def main_lines(plan: Plan, results: Results) -> Lines:
    """Mean and standard deviation of each arm; under them the 95% interval over seeds and examples; chance."""
    chosen = figures_of(plan, results)
    lines = [["", "seeds", "steps", "images", "TFLOP", *chosen]]
    for name, seeds in results.items():
        if not seeds:
            continue
        one, spreads = next(iter(seeds.values())), [over_seeds(seeds, title, not plan.folds) for title in chosen]
        size = [str(len(seeds)), f"{one['steps']:,}", f"{one['images']:,}", f"{one['tflop']:.2f}"]
        lines.append([f"**{name}**", *size, *(found.value for found in spreads)])
        lines.append(["95% interval", "", "", "", "", *(found.interval for found in spreads)])
    some = next((result for seeds in results.values() for result in seeds.values()), None)
    if some:
        lines.append(["chance", "", "", "", "", *(_chance(some["figures"][title]) for title in chosen)])
    return lines


def held_out_lines(results: Results, titles: Sequence[str]) -> Lines:
    """The same on the combinations that training never shows, of the seeds whose results tell; no rows without one."""
    found = {arm: [r["held_out"] for r in seeds.values() if r.get("held_out")] for arm, seeds in results.items()}
    chosen = [title for title in titles if all(title in cells for each in found.values() for cells in each)]
    lines = [["", "seeds", *chosen]]
    for arm, each in found.items():
        if each:
            values = (spread([cells[title]["value"] for cells in each]).value for title in chosen)
            lines.append([f"**{arm}**", str(len(each)), *values])
    some = next((cells for each in found.values() for cells in each), None)
    return [*lines, ["n", "", *(str(some[title]["n"]) for title in chosen)]] if some and chosen else lines[:1]


def test_lines(plan: Plan, results: Results) -> Lines:
    """The plan's comparisons, seed by seed, p corrected for the number of tests in this table."""
    return comparison_lines(
        [
            (f"{second} - {first}", title, test)
            for first, second in plan.compare
            for title in figures_of(plan, results)
            if (test := paired(*_both(results, first, second, title))) is not None
        ]
    )


def _both(results: Results, first: str, second: str, title: str) -> tuple[Sequence[float], Sequence[float]]:
    common = [seed for seed in results[first] if seed in results[second]]
    a, b = ([results[arm][seed]["figures"][title]["value"] for seed in common] for arm in (first, second))
    return a, b


def _chance(cell: Mapping[str, Any]) -> str:
    return "" if cell["chance"] is None else f"{cell['chance']:.1f}"
