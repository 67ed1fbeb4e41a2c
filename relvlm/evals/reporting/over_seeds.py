"""What several runs of one model say, which differ in their seeds: means, spreads, intervals, tests over seeds."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from relvlm.config.recipe import other_key, recipe_of
from relvlm.config.tree import read_tree
from relvlm.errors import UserError
from relvlm.evals.figures.seeds import Spread, Test, comparison_lines, paired, spread
from relvlm.evals.files import Row, read_object
from relvlm.evals.reporting.bands import plot_bands
from relvlm.evals.reporting.pages import Section
from relvlm.evals.reporting.run import Run
from relvlm.evals.tasks.registry import columns, titles

Models = Mapping[str, Mapping[int, Run]]  # by name, then by seed
Spreads = dict[str, dict[str, Spread]]  # by model, then by title
log = logging.getLogger(__name__)
NOTE = (
    "Mean ± standard deviation over seeds; the 95% interval holds both seeds and examples. Tests are paired over the "
    "seeds that both have (t), p corrected for the number of tests (Holm); bold: below .05."
)


def names_of(runs: Sequence[Path], names: Sequence[str]) -> tuple[list[str], dict[str, dict[int, int]]]:
    """A name for each run alone, and by each name that several runs share: their places by seed.

    Runs of one name are told apart by the seed in their config.yaml. Raises UserError for two of one seed, and for one
    that was trained otherwise than the first of its name.
    """
    seeds: dict[str, dict[int, int]] = {name: {} for name, count in Counter(names).items() if count > 1}
    own = list(names)
    for place, (run, name) in enumerate(zip(runs, names, strict=True)):
        if name in seeds:
            seed = _seed(run)
            if seed in seeds[name]:
                raise UserError(f"{run}: {name}: a second run of seed {seed} (give another name)")
            if seeds[name]:
                _check_alike(runs[next(iter(seeds[name].values()))], run, name)
            seeds[name][seed] = place
            own[place] = f"{name}, seed {seed}"
    return own, seeds


def _seed(run: Path) -> int:
    seed = read_tree(run / "config.yaml").get("seed", 0)
    if not isinstance(seed, int):
        raise UserError(f"{run / 'config.yaml'}: seed: {seed!r} is no number")
    return seed


def _check_alike(first: Path, second: Path, name: str) -> None:
    other = other_key(recipe_of(read_tree(first / "config.yaml")), recipe_of(read_tree(second / "config.yaml")))
    if other:
        raise UserError(f"{first}, {second}: {name}: not seeds of one model: {other} (give another name)")


def over_seeds(models: Models, out: Path) -> Section:
    """The section; models of one run are not among them."""
    shared = [
        title
        for title in titles()
        if all(title in run.rows.cells for seeds in models.values() for run in seeds.values())
    ]
    lines = [["", "seeds", *shared]]
    for name, seeds in models.items():
        cells = [[run.rows.cells[title] for run in seeds.values()] for title in shared]
        found = [spread([c.value for c in each], [c.interval for c in each if c.interval]) for each in cells]
        lines.append([f"**{name}**", str(len(seeds)), *(each.value for each in found)])
        lines.append(["95% interval", "", *(each.interval for each in found)])
    tables = [("", lines)]
    if tests := _tests(models, shared):
        tables.append(("Tests over seeds", comparison_lines(tests)))
    return Section("Over seeds", NOTE, tuple(tables), tuple(_plots(models, out)))


def _tests(models: Models, shared: Sequence[str]) -> list[tuple[str, str, Test]]:
    main, found = {column.title for column in columns() if column.over_steps}, []
    for first, second in combinations(models, 2):
        common = [seed for seed in models[first] if seed in models[second]]
        for title in (title for title in shared if title in main):
            a, b = ([models[name][seed].rows.cells[title].value for seed in common] for name in (first, second))
            if test := paired(a, b):
                found.append((f"{second} - {first}", title, test))
    return found


def _plots(models: Models, out: Path) -> list[Path]:
    histories = {name: [run.history for run in seeds.values() if run.history] for name, seeds in models.items()}
    shown = [title for title in titles() if any(title in h.titles for each in histories.values() for h in each)]
    written = []
    for number, title in enumerate(shown):
        curves = {
            name: [list(zip(h.steps, h.values(title), strict=True)) for h in each if title in h.titles]
            for name, each in histories.items()
        }
        written.append(plot_bands({n: c for n, c in curves.items() if c}, title, out / f"seeds_{number}.png"))
    return [path for path in written if path]


def fitting_spreads(study: Path, runs: Mapping[str, Path]) -> Spreads:
    """Those of `read_spreads` whose models were trained as the run of that name was; a warning says of another why.

    UserError where no run has a name of them.
    """
    spreads, recipes = read_spreads(study)
    if spreads.keys().isdisjoint(runs):
        raise UserError(f"--spread: {study}: of {', '.join(spreads)}, which is no run's name (give --names)")
    for name in spreads.keys() & runs.keys():
        config = runs[name] / "config.yaml"
        if other := other_key(recipes[name], recipe_of(read_tree(config))):
            log.warning("%s: not shown under %s: %s there and in %s", study, name, other, config)
            del spreads[name]
    return spreads


def read_spreads(study: Path) -> tuple[Spreads, dict[str, Mapping[str, Any]]]:
    """By model and title, of a study's results (`relvlm.study`, the folder with `runs`), and by model how it was
    trained; UserError for another folder."""
    paths = sorted((study / "runs").glob("*.json"))
    if not paths:
        raise UserError(f"{study}: no results of a study (the folder that holds runs/*.json)")
    found: dict[tuple[str, str], list[Row]] = {}
    recipes = {}
    for path in paths:
        result = read_object(path)
        try:
            found.setdefault((result["arm"], result["budget"]), []).append(result["figures"])
            recipes[result["arm"]] = result["recipe"]
        except KeyError as error:
            raise UserError(f"{path}: {error}: absent, this is no result of a study") from error
    models = [arm for arm, _ in found]
    if twice := [arm for arm, count in Counter(models).items() if count > 1]:
        raise UserError(f"{study}: {', '.join(twice)}: of several budgets (give a study of one)")
    return {arm: _of_titles(figures) for (arm, _), figures in found.items()}, recipes


def _of_titles(figures: Sequence[Row]) -> dict[str, Spread]:
    shared = [title for title in figures[0] if all(title in each for each in figures)]
    return {title: spread([each[title]["value"] for each in figures]) for title in shared}
