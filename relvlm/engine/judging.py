"""What a run does about evaluations of its own checkpoints: when, where the figures go, which checkpoint is best.

Who evaluates is handed in (a `Judge`): the engine knows no benchmark.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import torch

from relvlm import checkpoints, storage
from relvlm.config.schema import Config

FIGURES = "evals.csv"  # in the run's folder: step, figure, value (percent)
BEST = "best.json"
log = logging.getLogger(__name__)


class Judge(Protocol):
    """Evaluates checkpoints of a run, by all of its ranks together."""

    def check(self) -> None:
        """UserError, before any work, for what is known to fail."""

    def figures(self, checkpoint: Path, device: torch.device) -> Mapping[str, float]:
        """Figures in percent by their names, the same on every rank; UserError where it cannot be evaluated."""


def is_due(step: int, config: Config) -> bool:
    """Whether the checkpoint of a step is evaluated; the last one is, too."""
    return bool(config.eval.every) and (step % config.eval.every == 0 or step == config.steps)


def is_missing(step: int, out: Path, config: Config) -> bool:
    """Whether a run that goes on from a step has ended before that step was evaluated."""
    return step > 0 and is_due(step, config) and not any(int(row[0]) == step for row in read(out))


def note(out: Path, checkpoint: Path, figures: Mapping[str, float], keep_best: str | None) -> None:
    """Write the figures of a checkpoint, and whether it is the best so far; rank 0 alone.

    Figures of later steps go: the run has gone back, and makes these steps anew.
    """
    step = checkpoints.step_of(checkpoint)
    rows = [row for row in read(out) if int(row[0]) < step]
    rows += [(str(step), name, f"{value:.6g}") for name, value in figures.items()]
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([("step", "figure", "value"), *rows])
    with storage.writing(out / FIGURES):
        storage.write_whole(out / FIGURES, text.getvalue())
    log.info("step %d: evaluated: %s", step, ", ".join(f"{name} {value:.1f}" for name, value in figures.items()))
    found = [row for row in rows if row[1] == keep_best]
    if found:
        best = max(found, key=lambda row: _rank(float(row[2])))  # of equals the earliest
        known = {"figure": keep_best, "value": float(best[2]), "step": int(best[0])}
        with storage.writing(out / BEST):
            storage.write_whole(out / BEST, json.dumps(known))
        log.info("best by %s: %s at step %s", keep_best, best[2], best[0])
    elif keep_best is not None:
        log.warning("checkpoint.keep_best: %r is none of %s: none is kept for it", keep_best, ", ".join(figures))


def _rank(value: float) -> float:
    """What is no number is worse than any: it would stay the best for ever."""
    return -math.inf if math.isnan(value) else value


def read(out: Path) -> list[tuple[str, str, str]]:
    """Step, figure and value of each evaluation so far; what was not written whole is left out."""
    path = out / FIGURES
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [(row[0], row[1], row[2]) for row in csv.reader(file) if len(row) == 3 and row[0].isdigit()]


def best_step(out: Path) -> int | None:
    """The step whose checkpoint is kept for being the best; None where there is none, or it cannot be told."""
    try:
        return int(json.loads((out / BEST).read_text())["step"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
