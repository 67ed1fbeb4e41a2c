"""Folders of results: what `relvlm eval` left in them, read again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from relvlm.errors import UserError
from relvlm.evals.figures import main_table
from relvlm.evals.figures.main_table import Cell, ModelRows
from relvlm.evals.figures.outcomes import DIGEST, FILE, Outcomes, digest, load
from relvlm.evals.figures.seeds import Spread
from relvlm.evals.files import Row, read_object
from relvlm.evals.tasks.registry import task_named, titles
from relvlm.evals.tasks.task import Card, is_dev


def result_files(folder: Path) -> dict[str, Path]:
    """The `metrics.json` files under a folder by task (`<task>_dev` for a dev split); {} where none is.

    Raises UserError where two of them are of one task, and where they are of two models.
    """
    files: dict[str, Path] = {}
    models: dict[str, Path] = {}
    for path in sorted(folder.glob("**/metrics.json")):
        figures = read_figures(path)
        name, model = _name(figures), figures.get("protocol", {}).get("model", "")
        if name in files:
            raise UserError(f"{path}: a second metrics.json of {name} (name one evaluation)")
        if model and models and model not in models:
            raise UserError(f"{path}: not of the model of {next(iter(models.values()))} (give each a folder)")
        files[name] = path
        models |= {model: path} if model else {}
    return files


def read_figures(path: Path) -> Row:
    """The figures of a metrics.json; UserError for one that is not as `relvlm eval` writes it."""
    figures = read_object(path)
    if not isinstance(figures.get("task"), str):
        raise UserError(f"{path}: task: absent, this is no result of relvlm eval")
    task_named(figures["task"])
    if not isinstance(figures.get("protocol", {}), dict):
        raise UserError(f"{path}: protocol: expected an object (evaluate again)")
    return figures


def read_results(folder: Path) -> dict[str, Row]:
    """The figures in these files."""
    return {name: read_figures(path) for name, path in result_files(folder).items()}


def outcomes_of(folder: Path) -> Outcomes:
    """Outcomes of one evaluation: those that were saved, else those of its scores.

    Raises UserError where they are not those that its figures are of.
    """
    figures = read_figures(folder / "metrics.json")
    if (folder / FILE).is_file():
        found = load(folder / FILE)
        if figures.get(DIGEST, digest(folder / FILE)) != digest(folder / FILE):
            raise UserError(f"{folder / FILE}: not of the metrics.json beside it (evaluate again)")
        return found
    return task_named(figures["task"]).outcomes(folder / "scores.jsonl")


def cards_of(folder: Path) -> list[Card]:
    """Every example of one evaluation, for the error browser."""
    return task_named(read_figures(folder / "metrics.json")["task"]).cards(folder)


def model_rows(name: str, results: Mapping[str, Row]) -> ModelRows:
    """A model's cells of every task that was evaluated."""
    cells: dict[str, Cell] = {}
    for figures in results.values():
        found = _cells(figures, name)
        cells |= {title: replace(cell, task=_name(figures)) for title, cell in found.items()}
    return ModelRows(name, cells)


def _cells(figures: Row, model: str) -> dict[str, Cell]:
    try:
        return task_named(figures["task"]).cells(figures)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{model}: metrics.json of {figures['task']}: {error}: absent, or not as relvlm eval writes it "
            "(evaluate again)"
        ) from error


def table_lines(
    *models: ModelRows, spreads: Mapping[str, Mapping[str, Spread]] = main_table.NO_SPREADS
) -> list[list[str]]:
    """The main table of several models."""
    return main_table.table_lines(models, titles(), spreads)


def _name(figures: Row) -> str:
    return str(figures["task"]) + ("_dev" if is_dev(figures) else "")
