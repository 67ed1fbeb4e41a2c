"""One table of several models, laid out as the paper's Table 2, with intervals, chance and sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from relvlm.errors import UserError
from relvlm.evals import tables as layout
from relvlm.evals.figures.bootstrap import Interval
from relvlm.evals.files import Row, read_json

Results = Mapping[str, Row]


@dataclass(frozen=True)
class Cell:
    """A figure in percent with its 95% interval (None where none is given), chance level and size."""

    value: float
    interval: tuple[float, float] | None
    chance: float | None
    n: int
    task: str = ""
    figure: str = ""  # its name among the task's outcomes


@dataclass(frozen=True)
class ModelRows:
    """A model's cells by column title."""

    name: str
    cells: Mapping[str, Cell]


RECALLS = {
    "paragraphs": ("Paragraphs", ("TR@1", "TR@5", "IR@1", "IR@5")),
    "flickr30k": ("Flickr30K", ("TR@1", "TR@5", "IR@1", "IR@5")),
    "coco": ("COCO", ("TR@1", "IR@1")),
}
PAIRS = {
    "valse": "VALSE",
    "svo": "SVO",
    "sugarcrepe": "SugarCrepe",
    "winoground": "Winoground group",
    "aro": "ARO",
}
COLUMNS = (
    "VSR",
    "VSR dev",
    "VSR test",
    "VALSE",
    "SVO",
    *(f"{title} {recall}" for title, recalls in RECALLS.values() for recall in recalls),
    "SugarCrepe",
    "Winoground group",
    "ARO",
    *(f"{title} dev {recall}" for title, recalls in RECALLS.values() for recall in recalls),
    "VSR, calibrated",
    "VSR dev, calibrated",
    "VSR test, calibrated",
)


def model_rows(name: str, results: Results) -> ModelRows:
    """The cells of every task that was evaluated."""
    cells: dict[str, Cell] = {}
    for figures in results.values():
        task = figures["task"]
        if task == "vsr":
            cells |= _vsr(figures)
        elif task in RECALLS:
            title, recalls = RECALLS[task]
            cells |= _retrieval(figures, title + (" dev" if is_dev(figures) else ""), recalls)
        else:
            cells |= _pairs(figures, task)
    return ModelRows(name, cells)


def with_intervals(rows: ModelRows, found: Mapping[str, Mapping[str, Interval]]) -> ModelRows:
    """The same figures with these intervals, given by task and by figure."""

    def replaced(cell: Cell) -> Cell:
        interval = found[cell.task][cell.figure]
        return replace(cell, interval=(interval.low, interval.high))

    return ModelRows(rows.name, {title: replaced(cell) for title, cell in rows.cells.items()})


def is_dev(figures: Row) -> bool:
    """Whether retrieval figures are those of the dev split."""
    return figures.get("split") in ("val", "dev")


def read_results(folder: Path) -> dict[str, Row]:
    """Metrics by task (`<task>_dev` for a dev split) of the `metrics.json` files under a folder; {} where none is.

    Raises UserError where two of them are of one task.
    """
    return {name: read_json(path) for name, path in result_files(folder).items()}


def result_files(folder: Path) -> dict[str, Path]:
    """The `metrics.json` files under a folder by task, as `read_results` names them."""
    files: dict[str, Path] = {}
    for path in sorted(folder.glob("**/metrics.json")):
        figures = read_json(path)
        name = str(figures["task"]) + ("_dev" if is_dev(figures) else "")
        if name in files:
            raise UserError(f"{path}: a second metrics.json of {name} (name one evaluation)")
        files[name] = path
    return files


def as_markdown(*models: ModelRows) -> str:
    """The table as Markdown."""
    return layout.markdown(table_lines(*models))


def table_lines(*models: ModelRows) -> list[list[str]]:
    """Per model its figures and, under them, their 95% intervals; then chance and n. Empty columns are left out."""
    titles = [title for title in COLUMNS if any(title in model.cells for model in models)]
    lines = [["", *titles]]
    for model in models:
        lines.append([f"**{model.name}**", *(_value(model.cells.get(title)) for title in titles)])
        lines.append(["95% interval", *(_interval(model.cells.get(title)) for title in titles)])
    anyone = {title: next(m.cells[title] for m in models if title in m.cells) for title in titles}
    lines.append(["chance", *(_number(anyone[title].chance) for title in titles)])
    lines.append(["n", *(str(anyone[title].n) for title in titles)])
    return lines


def _vsr(figures: Row) -> dict[str, Cell]:
    """Dev and test where the files were told apart, else one column for the set (`VSR test`).

    Files of several releases (`random_dev`, `zeroshot_test`) have no one dev and test: `VSR` is all their rows.
    """
    parts = figures.get("by_split", {"test": figures})
    if len({name.rpartition("_")[0] for name in parts}) > 1:
        return _vsr_cells("VSR", figures)
    cells: dict[str, Cell] = {}
    for name, part in parts.items():
        split = name.rpartition("_")[-1]
        if split in ("dev", "test"):
            cells |= _vsr_cells(f"VSR {split}", part, f"{name}/" if "by_split" in figures else "")
    return cells


def _vsr_cells(title: str, part: Row, prefix: str = "") -> dict[str, Cell]:
    """Accuracy at the protocol's threshold, and at the median score."""
    calibrated = _pair(part["calibrated_at_median_interval95"])
    return {
        title: Cell(part["overall"], _pair(part["interval95"]), 50.0, part["n"], "vsr", f"{prefix}overall"),
        f"{title}, calibrated": Cell(
            part["calibrated_at_median"], calibrated, 50.0, part["n"], "vsr", f"{prefix}calibrated_at_median"
        ),
    }


def _retrieval(figures: Row, title: str, recalls: Sequence[str]) -> dict[str, Cell]:
    sizes = {"TR": figures["n_images"], "IR": figures["n_texts"]}
    return {
        f"{title} {recall}": Cell(
            figures[recall],
            _pair(figures["intervals95"][recall]),
            figures["chance"][recall],
            sizes[recall.partition("@")[0]],
            figures["task"] + ("_dev" if is_dev(figures) else ""),
            recall,
        )
        for recall in recalls
    }


def _pairs(figures: Row, task: str) -> dict[str, Cell]:
    chance = figures["chance"]
    level = chance["group"] if isinstance(chance, dict) else chance
    interval = _pair(figures["interval95"])
    return {PAIRS[task]: Cell(figures["overall"], interval, level, figures["n"], task, "overall")}


def _pair(values: Sequence[float]) -> tuple[float, float]:
    low, high = values
    return low, high


def _value(cell: Cell | None) -> str:
    return "" if cell is None else f"**{cell.value:.1f}**"


def _interval(cell: Cell | None) -> str:
    return "" if cell is None or cell.interval is None else f"{cell.interval[0]:.1f}-{cell.interval[1]:.1f}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"
