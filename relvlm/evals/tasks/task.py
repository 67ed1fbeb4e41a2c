"""What a benchmark is to the rest of evaluation: scored, judged, in the table, in the error browser.

Two shapes of it exist: `tasks/pairs.py` (each example has a few scores of its own) and `tasks/retrieval.py`. A
benchmark is one file that makes one of them, and a name in `tasks/registry.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from relvlm.evals.figures.main_table import Cell, Column
from relvlm.evals.figures.outcomes import Outcomes
from relvlm.evals.files import Row
from relvlm.evals.images import DataSet
from relvlm.evals.scoring.photos import CropBox
from relvlm.evals.scoring.scorer import Scorer

DEV_SPLIT = "val"


@dataclass(frozen=True)
class Selection:
    """What of a task is scored: `limit` examples (images) of each file, 0 for all; `k` 0 for the protocol's.

    `available`: leave out the examples whose image is missing or damaged, and list them, instead of refusing.
    `overlap`: names of images that training may have seen; retrieval is scored once more without them.
    """

    limit: int = 0
    k: int = 0
    split: str = "test"
    available: bool = False
    overlap: tuple[str, ...] = ()


@dataclass(frozen=True)
class Scored:
    """An evaluation: its figures, the lines of scores.jsonl, and `files` of JSON beside it, by name."""

    figures: Row
    lines: Iterable[str]
    outcomes: Outcomes
    files: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Card:
    """One example in the error browser: image names, (description, text, score) lines, whether the model is right.

    `piece`: the part of the benchmark that it is of; `what`: what it tests; `box`: the part of the images scored;
    `relation` and `entities`: that of its text, and subject and object, where the annotations name them; `marks`: named
    boxes to draw on each image, (x0, y0, x1, y1) as shares of it.
    """

    images: tuple[str, ...]
    lines: tuple[tuple[str, str, float], ...]
    right: bool
    piece: str
    what: str = ""
    box: CropBox | None = None
    relation: str = ""
    entities: tuple[str, ...] = ()
    marks: tuple[tuple[str, tuple[float, float, float, float]], ...] = ()


class Task(Protocol):
    """A benchmark. `rule`: its protocol, in words; `columns`: all that its cells may stand in.

    `data_sets`: those that its photos are of, by whose folders a name is looked up.
    """

    @property
    def name(self) -> str: ...
    @property
    def rule(self) -> str: ...
    @property
    def columns(self) -> tuple[Column, ...]: ...
    @property
    def data_sets(self) -> tuple[DataSet, ...]: ...

    def check(self, annotations: Path, images: Path, selection: Selection) -> None:
        """UserError for what the user can mend, as far as it is seen without a model and without opening a photo."""

    def score(self, scorer: Scorer, annotations: Path, images: Path, selection: Selection) -> Scored:
        """By a model; UserError for what the user can mend."""

    def rescore(self, scores: Path, annotations: Path | None) -> Row:
        """Figures of a scores file, checked against the annotations where they are given."""

    def lacks(self, scorer: Scorer) -> str:
        """What its model lacks to be scored, in words; "" where it lacks nothing."""

    def splits(self, annotations: Path) -> set[str]:
        """What `Selection.split` may be; none where it has no meaning."""

    def outcomes(self, scores: Path) -> Outcomes:
        """Each example's outcome, of a scores file."""

    def cards(self, folder: Path) -> list[Card]:
        """Every example of a folder of results."""

    def cells(self, figures: Row) -> dict[str, Cell]:
        """Cells of the main table, by title."""


def is_dev(figures: Row) -> bool:
    """Whether figures are those of a dev split."""
    return figures.get("split") in (DEV_SPLIT, "dev")
