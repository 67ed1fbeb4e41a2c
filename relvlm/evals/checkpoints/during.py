"""Evaluation while a run trains: what `relvlm eval --all-checkpoints` would do, checkpoint by checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from relvlm.config.schema import Config
from relvlm.errors import UserError
from relvlm.evals.checkpoints.every import RESULTS, evaluate_checkpoints
from relvlm.evals.evaluate import Source, suite_sources
from relvlm.evals.results import model_rows, read_results
from relvlm.evals.scoring.scorer import ScoreOptions
from relvlm.evals.tasks.pairs import PairTask
from relvlm.evals.tasks.registry import task_named
from relvlm.evals.tasks.retrieval import RetrievalTask
from relvlm.evals.tasks.task import DEV_SPLIT, Selection


@dataclass(frozen=True)
class TrainingJudge:
    """The judge of a run (relvlm/engine/judging.py), by `config.eval`; all ranks share the images among them."""

    config: Config

    def check(self) -> None:
        """Raises UserError for a suite, a task, a photo or a figure that is not there."""
        figure = self.config.checkpoint.keep_best
        known = [title for source in self._sources() for title in _titles(source)]
        if figure is not None and figure not in known:
            raise UserError(f"checkpoint.keep_best: {figure!r} is none of {', '.join(dict.fromkeys(known))}")
        for source in self._sources():
            if self.config.model.localisation or not _needs_boxes(source):
                try:
                    source.check()
                except UserError as error:
                    raise UserError(f"eval.suite: {error}") from error

    def figures(self, checkpoint: Path, device: torch.device) -> Mapping[str, float]:
        """By the columns of the main table."""
        out = Path(self.config.out) / RESULTS
        evaluate_checkpoints([checkpoint], self._sources(), out, ScoreOptions(device=str(device)))
        cells = model_rows(self.config.name, read_results(out / checkpoint.name)).cells
        return {title: cell.value for title, cell in cells.items()}

    def _sources(self) -> list[Source]:
        asked = self.config.eval
        try:
            found = suite_sources(Path(str(asked.suite)), Selection(limit=asked.limit), dev=True)
        except UserError as error:
            raise UserError(f"eval.suite: {error}") from error
        if absent := set(asked.tasks) - {source.task for source in found}:
            here = ", ".join(dict.fromkeys(source.task for source in found))
            raise UserError(f"eval.tasks: {', '.join(sorted(absent))}: not in {asked.suite} (it has {here})")
        return [source for source in found if source.task in (asked.tasks or [source.task])]


def _titles(source: Source) -> list[str]:
    """Columns that it may have figures in: of retrieval, those of its split."""
    task, is_dev = task_named(source.task), source.selection.split == DEV_SPLIT
    titles = [column.title for column in task.columns]
    return [t for t in titles if (" dev " in t) == is_dev] if isinstance(task, RetrievalTask) else titles


def _needs_boxes(source: Source) -> bool:
    task = task_named(source.task)
    return isinstance(task, PairTask) and task.needs_boxes
