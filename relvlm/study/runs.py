"""The runs of a study: each an ordinary `relvlm train` that evaluates itself, several side by side, restartable.

A run is done when its JSON among the results is of the same config and data by content; the rest go on from their
newest checkpoints.
"""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from relvlm import checkpoints, storage
from relvlm.config.load import load_config, to_tree
from relvlm.config.recipe import recipe_of
from relvlm.config.schema import Config
from relvlm.config.training import LAST_STEP, CheckpointConfig
from relvlm.engine.resume import inputs_of
from relvlm.errors import UserError
from relvlm.evals.checkpoints.history import held_out_cells, read_history
from relvlm.evals.figures.main_table import Cell
from relvlm.evals.files import read_object
from relvlm.pretrained import latest
from relvlm.stopping import REQUEUE
from relvlm.study.budget import cost_of, steps_of
from relvlm.study.plan import Arm, Budget, Plan, slug

POLL_S = 0.5
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """One arm with one seed at one budget."""

    plan: Plan
    budget: Budget
    arm: Arm
    seed: int

    @property
    def name(self) -> str:
        return f"{self.budget.name}, {self.arm.name}, seed {self.seed}"

    @property
    def folder(self) -> Path:
        return Path(self.plan.out) / slug(self.budget.name) / slug(self.arm.name) / f"seed_{self.seed}"

    @property
    def result(self) -> Path:
        name = f"{slug(self.budget.name)}-{slug(self.arm.name)}-{self.seed}.json"
        return Path(self.plan.results) / "runs" / name

    @property
    def suite(self) -> Path:
        return Path(self._of_seed(self.arm.suite or self.plan.suite))

    def _of_seed(self, text: str) -> str:
        return text.replace("{seed}", str(self.seed))

    @cached_property
    def before(self) -> Run | None:
        """The run that this one goes on from."""
        arm = next((arm for arm in self.plan.arms if arm.name == self.arm.after), None)
        return replace(self, arm=arm) if arm else None

    @property
    def ready(self) -> bool:
        """Whether what it goes on from is there."""
        return self.before is None or self.before.ended

    @property
    def ended(self) -> bool:
        """Whether its last checkpoint is in its folder, which a result alone does not say."""
        newest = latest(self.folder / "checkpoints")
        return newest is not None and checkpoints.step_of(newest) == self.config.steps

    @cached_property
    def overrides(self) -> list[str]:
        """What its `relvlm train` is told beside the arm's config."""
        of_arm = {each.partition("=")[0] for each in self.arm.set}
        of_plan = [each for each in self.plan.set if each.partition("=")[0] not in of_arm]
        own = [self._of_seed(each) for each in (*of_plan, *self.arm.set)]
        own += [f"seed={self.seed}", f"out={self.folder}"]
        if self.before:
            own.append(f"init={json.dumps({'checkpoint': str(self.before.folder)})}")
        # Its own steps are not those of the budget, and a phase of low_resolution may be longer than they are.
        config = load_config(Path(self.arm.config), [*own, f"steps={LAST_STEP}"])
        steps = steps_of(self.budget, config, self.arm.share)
        every = -(-steps // self.plan.evaluations)
        return [*own, f"steps={steps}", f"eval.every={every}", f"eval.suite={self.suite}"]

    @cached_property
    def config(self) -> Config:
        return load_config(Path(self.arm.config), self.overrides)

    @cached_property
    def digest(self) -> str:
        """Names what the config sets otherwise than the defaults, and all that it reads, by content.

        So a field that a later version adds leaves results what they are, as folders and the checkpoints kept do.
        """
        config = replace(self.config, out="run", name="run", checkpoint=CheckpointConfig())
        config = replace(config, eval=replace(config.eval, suite="suite"))
        if self.before:
            config = replace(config, init=replace(config.init, checkpoint=self.before.digest))
        made_from = {
            "config": set_otherwise(to_tree(config), to_tree(Config())),
            "inputs": inputs_of(self.config),
            "suite": _digest(self.suite),
        }
        return hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()[:16]

    def is_done(self) -> bool:
        """UserError where its result is damaged, or of another config or other data: that must not be passed over."""
        if not self.result.is_file():
            return False
        known = read_object(self.result).get("digest")
        if known != self.digest:
            raise UserError(
                f"{self.result}: of another config or other data ({known}, now {self.digest}): remove it and "
                f"{self.folder} to train anew"
            )
        return True


def runs_of(plan: Plan) -> list[Run]:
    """All of them; a seed of every arm before the next seed, so that what is there can always be compared."""
    return [Run(plan, budget, arm, seed) for budget in plan.budgets for seed in plan.seeds for arm in plan.arms]


def left(runs: Sequence[Run]) -> list[Run]:
    """Those without a result, and those that one of them goes on from and whose checkpoints are gone."""
    missing = [run for run in runs if not run.is_done()]
    return [run for run in runs if run in missing or any(run == other.before for other in missing if not other.ready)]


def train(runs: Sequence[Run], processes: int) -> list[str]:
    """Train so many at a time, one thread each; what failed, a line each. Interrupted, all of them save and end."""
    waiting, failed = left(runs), list[str]()
    going: list[tuple[Run, subprocess.Popen[bytes]]] = []
    try:
        while going or any(run.ready for run in waiting):
            while len(going) < processes and (run := next((run for run in waiting if run.ready), None)):
                waiting.remove(run)
                going.append((run, _start(run)))
                log.info("%s: begins (%s)", run.name, run.folder)
            time.sleep(POLL_S)
            ended = [(run, process) for run, process in going if process.poll() is not None]
            going = [each for each in going if each not in ended]
            for run, process in ended:
                failed += _ended(run, process.returncode, len(waiting) + len(going))
    finally:
        for _, process in going:
            process.terminate()
        for _, process in going:
            process.wait()
    return failed + [f"{run.name}: not begun: {run.arm.after}, which it goes on from, has not ended" for run in waiting]


def _start(run: Run) -> subprocess.Popen[bytes]:
    run.folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "relvlm.cli", "train", "--config", run.arm.config, *run.overrides]
    with (run.folder / "train.log").open("ab") as said:
        return subprocess.Popen(command, stdout=said, stderr=said, env=os.environ | {"OMP_NUM_THREADS": "1"})


def _ended(run: Run, status: int, left: int) -> list[str]:
    if status:
        what = "was told to end" if status == REQUEUE else f"ended with status {status}"
        log.error("%s: %s (%s)", run.name, what, run.folder / "train.log")
        return [f"{run.name}: {what} (see {run.folder / 'train.log'})"]
    try:
        result = found(run)
    except UserError as error:  # the other runs go on
        log.error("%s: %s", run.name, error)
        return [f"{run.name}: {error}"]
    storage.write_whole(run.result, json.dumps(result, indent=1) + "\n")
    log.info("%s: done, %d runs are left", run.name, left)
    return []


def found(run: Run) -> dict[str, Any]:
    """What is kept of a run that has ended."""
    history = read_history(run.folder, run.arm.name)
    if history is None or history.steps[-1] != run.config.steps:
        raise UserError(f"{run.folder}: its last checkpoint was not evaluated (see {run.folder / 'train.log'})")
    cost = cost_of(run.config)
    curves = {title: list(zip(history.steps, history.values(title), strict=True)) for title in history.titles}
    run.result.parent.mkdir(parents=True, exist_ok=True)
    return {
        "study": run.plan.name, "budget": run.budget.name, "arm": run.arm.name, "seed": run.seed,
        "steps": run.config.steps, "images": round(cost.images * run.config.steps),
        "tflop": cost.spent(run.config.steps) / 1e12, "hours": _hours(run.folder), "digest": run.digest,
        "recipe": recipe_of(to_tree(run.config)),
        "commit": _commit(), "machine": f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}",
        "figures": _kept(history.cells[-1]), "held_out": _kept(held_out_cells(history.folders[-1])), "curves": curves,
    }  # fmt: skip


def _kept(cells: Mapping[str, Cell]) -> dict[str, Any]:
    return {
        title: {"value": cell.value, "interval": cell.interval, "chance": cell.chance, "n": cell.n}
        for title, cell in cells.items()
    }


def _commit() -> str:
    """Of the clone that this program runs in; empty without one."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def _hours(folder: Path) -> float:
    with (folder / "metrics.csv").open(newline="") as file:
        return sum(float(row["step_s"]) for row in csv.DictReader(file)) / 3600


def set_otherwise(tree: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """What of a tree differs from the defaults."""
    found = {}
    for key, value in tree.items():
        if isinstance(value, dict) and isinstance(defaults.get(key), dict):
            value = set_otherwise(value, defaults[key])
            if value:
                found[key] = value
        elif key not in defaults or value != defaults[key]:
            found[key] = value
    return found


def _digest(suite: Path) -> str:
    """Of all of its files but the photos, which these name."""
    digest = hashlib.sha256()
    for path in (p for p in storage.files_below(suite) if p.relative_to(suite).parts[0] != "images"):
        digest.update(f"{path.relative_to(suite)}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()
