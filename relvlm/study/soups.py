"""Averages of a run's last checkpoints (`relvlm soup`), to be compared with its last and with the best one on dev.

They are made of runs that have ended, while their checkpoints are there, and kept in the JSON of the run.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import torch

from relvlm import storage
from relvlm.checkpoints import step_of
from relvlm.errors import UserError
from relvlm.evals.checkpoints import soup
from relvlm.evals.checkpoints.during import TrainingJudge
from relvlm.evals.checkpoints.every import checkpoints_of
from relvlm.evals.checkpoints.history import CHOOSERS, read_history
from relvlm.study.runs import Run

KINDS = ("uniform", "exponential", "greedy")
LAST = 3  # checkpoints, at equal distances
DECAY = 0.5  # of the exponential average: shares of .25, .25, .5
DEV = CHOOSERS[0]  # what a greedy soup looks at
CPU = torch.device("cpu")
log = logging.getLogger(__name__)


def add_soups(runs: Sequence[Run], processes: int) -> list[str]:
    """Make those that are absent, so many runs at a time, one thread each; what failed, a line each.

    A run that is not done, or whose checkpoints are no longer here, is named and left out.
    """
    lacking = [run for run in runs if not (run.is_done() and _has_all(run))]
    waiting, faults = [run for run in lacking if run.is_done() and run.ended], list[str]()
    for run in lacking:
        if run not in waiting:
            log.info("%s: no averages: %s", run.name, "checkpoints are gone" if run.is_done() else "not trained yet")
    pool = ProcessPoolExecutor(processes, get_context("spawn"), torch.set_num_threads, (1,))
    try:
        for run, fault in zip(waiting, pool.map(_add, waiting), strict=True):
            log.info("%s: %s", run.name, fault or "soups are done")
            faults += [f"{run.name}: {fault}"] if fault else []
    finally:
        pool.shutdown(cancel_futures=True)
    return faults


def _has_all(run: Run) -> bool:
    return json.loads(run.result.read_text()).get("soups", {}).keys() >= set(KINDS)


def soups_of(run: Run) -> dict[str, Mapping[str, float]]:
    """Figures of the uniform, the exponential and the greedy average of one run's last checkpoints, by kind."""
    history = read_history(run.folder, run.arm.name)
    alone = dict(zip(history.steps, history.values(DEV), strict=True)) if history and DEV in history.titles else {}
    members = [path for path in checkpoints_of(run.folder) if step_of(path) in alone][-LAST:]
    if len(members) < LAST:
        raise UserError(f"{run.folder}: no {LAST} checkpoints with {DEV} (evaluations: at least {LAST}, of coco, too)")

    def on_dev(paths: Sequence[Path]) -> float:
        if len(paths) == 1:
            return alone[step_of(paths[0])]
        return _figures(run, "candidate", paths, soup.uniform_shares(len(paths)), ["coco"])[DEV]

    chosen, _ = soup.greedy(members, on_dev)
    tasks = run.config.eval.tasks
    return {
        "uniform": _figures(run, "uniform", members, soup.uniform_shares(LAST), tasks),
        "exponential": _figures(run, "exponential", members, soup.ema_shares(LAST, DECAY), tasks),
        "greedy": _figures(run, "greedy", chosen, soup.uniform_shares(len(chosen)), tasks),
    }


def _add(run: Run) -> str:
    """Empty, or what went wrong: the other runs go on."""
    try:
        result = json.loads(run.result.read_text())
        storage.write_whole(run.result, json.dumps(result | {"soups": soups_of(run)}, indent=1) + "\n")
    except UserError as error:
        return str(error)
    return ""


def _figures(
    run: Run, name: str, members: Sequence[Path], shares: Sequence[float], tasks: list[str]
) -> Mapping[str, float]:
    """By the columns of the main table; the soup and its scores lie in the run's folder."""
    folder = run.folder / "soups"
    made = soup.write(soup.average(members, shares), members, folder / name, {"of": soup.named(members)})
    config = replace(run.config, out=str(folder), eval=replace(run.config.eval, tasks=tasks))
    return TrainingJudge(config).figures(made, CPU)
