"""The steps of a run: batch -> loss -> update -> log -> checkpoint; and going back where too many were bad."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch

from relvlm import checkpoints
from relvlm.config.schema import Config
from relvlm.data.batches.batch import Batch
from relvlm.data.batches.loader import Loader, build_loader, dead_workers_named
from relvlm.data.batches.worker_signs import WorkerWatch
from relvlm.engine import judging, rollback, run_state, trouble
from relvlm.engine.clock import collectives_timed
from relvlm.engine.inputs import RunInputs
from relvlm.engine.judging import Judge
from relvlm.engine.monitor import Flops, Monitor, uncounted
from relvlm.engine.run_state import Progress
from relvlm.engine.saver import Saver
from relvlm.engine.schedule import keep_settings, settings_of
from relvlm.engine.signals import Told
from relvlm.engine.train_step import Update, train_step
from relvlm.engine.watchdog import Watchdog
from relvlm.errors import UserError
from relvlm.ranks import on_first_rank, rank, world_size

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Training:
    """What a run consists of once all of it is made; `flops` counts those of a step's chunks."""

    config: Config
    inputs: RunInputs
    engine: Any
    device: torch.device
    told: Told
    watch: Watchdog
    flops: Flops = uncounted
    judge: Judge | None = None

    def run(self, start: Progress) -> Path:
        """Steps after `start`; the last checkpoint. After too many bad ones all ranks go back together.

        Raises UserError with the diagnosis where there is nothing to go back to, or nothing left to try.
        """
        while True:
            try:
                with dead_workers_named():
                    return Stretch(self, start).run()
            except trouble.TooManyBadSteps as found:
                self.watch.begin(self.config.deadlines.start, found.progress.step)
                self.watch.at("start")
                back = functools.partial(rollback.go_back, Path(self.config.out), found, self.config.max_rollbacks)
            start = restore(self.engine, on_first_rank(back), self.config)


def restore(engine: Any, checkpoint: Path, config: Config) -> Progress:
    """How far the run was; what has been changed in the config takes effect."""
    settings = settings_of(engine.optimizer)
    progress = run_state.restore(engine, checkpoint)
    keep_settings(engine.optimizer, engine.lr_scheduler, settings)
    return on_first_rank(lambda: rollback.started_from(Path(config.out), progress))


class Stretch:
    """The steps from one start to the run's end, or until there is too much trouble."""

    def __init__(self, training: Training, start: Progress) -> None:
        self.config, self.engine, self.device = training.config, training.engine, training.device
        self.told, self.watch, self.judge = training.told, training.watch, training.judge
        self.start = self.progress = start
        out = Path(self.config.out)
        folder = out / "checkpoints"
        self.saver = Saver(folder, self.config, folder / checkpoints.name_of(start.step))
        self.loader = _build_loader(training, start)
        self.watch.look_at_workers = WorkerWatch(self.loader.signs).look
        self.engine.train()
        self.monitor = Monitor(self.config, out, start.step, self.device, training.flops, start.spiking)
        self.clock = self.monitor.clock

    def run(self) -> Path:
        """The last checkpoint. Raises TooManyBadSteps once what is being saved is whole."""
        with contextlib.closing(self.monitor), contextlib.closing(self.saver), collectives_timed(self.clock):
            if self.judge is not None and on_first_rank(self._was_not_evaluated):
                self._evaluate(self.start.step)
            for step in range(self.start.step + 1, self.config.steps + 1):
                if self._make(step):
                    break
            self._begin_saving()
            last = self.saver.wait()
        self._report_left_out()
        return last

    def _make(self, step: int) -> bool:
        """One step, with its log and checkpoint where they are due; whether the run was told to end after it."""
        self.watch.begin_step(step, self.start.step + 1)
        self.watch.at("data")
        asked = self.told.ask()
        with self.clock.phase("data"):
            chunks = [chunk.to(self.device) for chunk in next(self.loader)]
        lr = self.engine.optimizer.param_groups[0]["lr"]
        run_state.seed_step(self.config.seed, step + self.start.data_offset)
        update = train_step(self.engine, chunks, self.clock, self.watch.at)
        self.progress = trouble.counted(self.progress, update.stepped)
        if not update.stepped:
            trouble.report_skipped(self.progress, chunks[0])
        self.watch.at("agree")
        with self.clock.phase("communication"):
            ends = self.told.agreed(asked)
        self.monitor.record(step, chunks, lr, update, self.progress.skipped_in_all)
        judged = self.judge is not None and judging.is_due(step, self.config)
        save = ends or judged or step % self.config.checkpoint.every == 0 or step == self.config.steps
        self._log(chunks, update, due=save or step % self.config.log_every == 0)
        if save:
            self._begin_saving()
            with self.clock.phase("saving"):
                self.saver.save(self.engine, self.progress)
        if judged and not ends:
            self._evaluate(step)
        return ends

    def _log(self, chunks: list[Batch], update: Update, due: bool) -> None:
        self.watch.at("log")
        if due or trouble.is_too_much(self.progress, self.config):
            self.monitor.flush()
            self.progress = dataclasses.replace(self.progress, spiking=self.monitor.spikes.in_a_row)
        if trouble.is_too_much(self.progress, self.config):
            self.saver.wait(self.config.checkpoint.max_failed)
            raise trouble.TooManyBadSteps(self.progress, trouble.diagnosis(self.progress, chunks[0], update.values))

    def _evaluate(self, step: int) -> None:
        """The checkpoint of this step, once it is whole; a failure is one line, and training goes on."""
        with self.clock.phase("saving"):
            checkpoint = self.saver.wait(self.config.checkpoint.max_failed)
        if checkpoint.name != checkpoints.name_of(step):
            return  # it could not be saved, which has been said
        self.watch.begin(self.config.deadlines.evaluation, step)
        self.watch.at("evaluate")
        with self.clock.phase("evaluation"):
            try:
                figures = cast(Judge, self.judge).figures(checkpoint, self.device)
                on_first_rank(lambda: self._note(checkpoint, figures))
            except UserError as error:
                if rank() == 0:
                    log.warning("step %d: not evaluated: %s", step, error)

    def _was_not_evaluated(self) -> bool:
        return judging.is_missing(self.start.step, Path(self.config.out), self.config)

    def _note(self, checkpoint: Path, figures: Mapping[str, float]) -> None:
        judging.note(Path(self.config.out), checkpoint, figures, self.config.checkpoint.keep_best)
        self.monitor.note(checkpoints.step_of(checkpoint), figures)

    def _begin_saving(self) -> None:
        self.watch.begin(self.config.deadlines.save, self.progress.step)
        self.watch.at("save")

    def _report_left_out(self) -> None:
        left_out = {name: count for name, count in self.loader.counts().items() if count}
        if left_out and rank() == 0:
            log.info("left out by this rank's loader: %s", ", ".join(f"{k} {v}" for k, v in left_out.items()))


def _build_loader(training: Training, start: Progress) -> Loader:
    config = training.config
    return build_loader(
        config.data,
        training.inputs.streams,
        training.inputs.sets,
        image_size=config.model.image_size,
        patch_size=config.model.image_size // training.engine.module.model.vision.grid[0],
        seed=config.seed,
        start_step=start.step,
        rank=rank(),
        world_size=world_size(),
        low_resolution=config.low_resolution,
        accumulate=config.accumulate,
        data_offset=start.data_offset,
    )
