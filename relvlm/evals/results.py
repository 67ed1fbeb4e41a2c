"""Folders of results: what `relvlm eval` left in them, read again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from relvlm.errors import UserError
from relvlm.evals.figures import main_table
from relvlm.evals.figures.main_table import Cell, ModelRows
from relvlm.evals.figures.outcomes import FILE, Outcomes, load
from relvlm.evals.files import Row, read_json
from relvlm.evals.tasks.registry import task_named, titles
from relvlm.evals.tasks.task import Card, is_dev


def result_files(folder: Path) -> dict[str, Path]:
    """The `metrics.json` files under a folder by task (`<task>_dev` for a dev split); {} where none is.

    Raises UserError where two of them are of one task.
    """
    files: dict[str, Path] = {}
    for path in sorted(folder.glob("**/metrics.json")):
        name = _name(read_json(path))
        if name in files:
            raise UserError(f"{path}: a second metrics.json of {name} (name one evaluation)")
        files[name] = path
    return files


def read_results(folder: Path) -> dict[str, Row]:
    """The figures in these files."""
    return {name: read_json(path) for name, path in result_files(folder).items()}


def outcomes_of(folder: Path) -> Outcomes:
    """Outcomes of one evaluation: those that were saved, else those of its scores."""
    if (folder / FILE).is_file():
        return load(folder / FILE)
    return task_named(read_json(folder / "metrics.json")["task"]).outcomes(folder / "scores.jsonl")


def cards_of(folder: Path) -> list[Card]:
    """Every example of one evaluation, for the error browser."""
    return task_named(read_json(folder / "metrics.json")["task"]).cards(folder)


def model_rows(name: str, results: Mapping[str, Row]) -> ModelRows:
    """A model's cells of every task that was evaluated."""
    cells: dict[str, Cell] = {}
    for figures in results.values():
        found = task_named(figures["task"]).cells(figures)
        cells |= {title: replace(cell, task=_name(figures)) for title, cell in found.items()}
    return ModelRows(name, cells)


def table_lines(*models: ModelRows) -> list[list[str]]:
    """The main table of several models."""
    return main_table.table_lines(models, titles())


def _name(figures: Row) -> str:
    return str(figures["task"]) + ("_dev" if is_dev(figures) else "")
