"""The training loop: check everything, then batch -> loss -> step -> log -> checkpoint."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import logging
import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from relvlm import checkpoints, storage
from relvlm.config.check import remarks
from relvlm.config.exact import not_exact
from relvlm.config.load import dump
from relvlm.config.schema import Config
from relvlm.convert.init import initialise
from relvlm.data.batches.loader import Loader, build_loader, dead_workers_named
from relvlm.data.batches.pools import check_ranks
from relvlm.data.batches.worker_signs import WorkerWatch
from relvlm.engine import distributed, heartbeat, resume, rollback, run_state, trouble
from relvlm.engine.clock import collectives_timed
from relvlm.engine.ending import clear_ending, note_ending
from relvlm.engine.inputs import RunInputs, check_words, read_inputs
from relvlm.engine.lease import Lease
from relvlm.engine.monitor import Flops, Monitor, uncounted
from relvlm.engine.saver import Saver, clear
from relvlm.engine.schedule import build_optimizer, build_scheduler, keep_settings, settings_of
from relvlm.engine.signals import Told
from relvlm.engine.train_step import train_step
from relvlm.engine.watchdog import Watchdog, meeting
from relvlm.errors import UserError
from relvlm.model import RelVLM
from relvlm.plan.flops import Sizes
from relvlm.plan.spent import step_flops
from relvlm.pretraining.means import Ranks
from relvlm.pretraining.step import Pretraining
from relvlm.ranks import attempt_ahead, gather_rows, on_first_rank, rank, share, stop, sum_over_ranks, world_size
from relvlm.stopping import Stopped

LAST_S = 60.0  # by which the watchdog is earlier than a collective's own end
log = logging.getLogger(__name__)


def run(config: Config, deepspeed_config: Path | None = None) -> Path:
    """Train to `config.steps`, going on from the newest checkpoint in `config.out`; returns the last checkpoint.

    Raises UserError before any work for what can be known to fail, Stopped once it has saved where it is told to end.
    """
    settings = distributed.read_deepspeed_config(deepspeed_config)
    _check_stage(config, settings)
    folder = Path(config.out) / "checkpoints"
    read = attempt_ahead(lambda: read_inputs(config))
    lease = Lease(Path(config.out))
    with meeting(config.deadlines.start):
        device = distributed.start(config.threads, timedelta(seconds=config.deadlines.longest + LAST_S))
        if deepspeed_config is None:
            settings = distributed.default_settings(config)
        inputs = share(read)
        on_first_rank(lambda: check_ranks(config.data, world_size(), config.accumulate))
        on_first_rank(lease.take)
    try:
        number = on_first_rank(lambda: heartbeat.begin(Path(config.out), lease.number))
        with Watchdog(Path(config.out), number, config.deadlines) as watch:
            newest = on_first_rank(lambda: _begin(config, inputs.hashes, folder))
            pretraining = build_pretraining(config, settings, inputs.vocab_size, inputs.relations, fresh=newest is None)
            on_first_rank(lambda: run_state.check_room(pretraining, Path(config.out)))
            engine = _build_engine(pretraining, config, settings, device)
            start = _restore(engine, newest, config) if newest else run_state.Progress()
            with Told(os.environ) as told:
                flops = functools.partial(step_flops, Sizes(config.model, inputs.vocab_size, len(inputs.relations)))
                last = _train(config, inputs, engine, start, device, told, watch, flops)
                stop()
            if told.reason and last.name != checkpoints.name_of(config.steps):
                raise Stopped(told.reason, last)
            return last
    finally:
        if lease.path is not None:
            note_ending(Path(config.out), sys.exception())
        lease.release()


def _check_stage(config: Config, settings: dict[str, Any]) -> None:
    stage = settings.get("zero_optimization", {}).get("stage")
    if config.model.momentum.enabled and stage == 3:
        raise UserError("model.momentum.enabled: needs whole parameters on every rank (take ZeRO stage 0-2)")
    if config.model.compile and stage == 3:
        raise UserError("model.compile: needs whole parameters in every layer (take ZeRO stage 0-2)")


def _begin(config: Config, inputs: resume.Inputs, folder: Path) -> Path | None:
    """The checkpoint to go on from, and what a run says of itself at its start; rank 0, when the folder is its own."""
    rollback.remove_undone(Path(config.out))
    newest, faults = checkpoints.newest_whole(folder)
    if newest:
        notes = [f"goes on from {newest} with another {each}" for each in resume.check(newest, config, inputs)]
    else:
        notes = check_words(config)
    out = Path(config.out)
    with storage.writing(out, "out"):
        clear(folder)
        for damaged, fault in faults.items():
            log.warning("%s (goes on from %s; put aside as %s)", fault, newest, checkpoints.set_aside(damaged).name)
        clear_ending(out)
        dump(config, out / "config.yaml")
        storage.write_whole(out / resume.RUN, resume.description(config, inputs))
    for note in [*notes, *remarks(config), *(f"trained with {option}" for option in not_exact(config))]:
        log.info("%s", note)
    return newest


def _restore(engine: Any, checkpoint: Path, config: Config) -> run_state.Progress:
    """How far the run was; what has been changed in the config takes effect."""
    settings = settings_of(engine.optimizer)
    progress = run_state.restore(engine, checkpoint)
    keep_settings(engine.optimizer, engine.lr_scheduler, settings)
    return on_first_rank(lambda: rollback.started_from(Path(config.out), progress))


def build_pretraining(
    config: Config, settings: dict[str, Any], vocab_size: int, relations: list[str], fresh: bool
) -> Pretraining:
    """What to train; a `fresh` model starts from what `init` names, and rank 0 reports it (init.json)."""
    run_state.seed_everything(config.seed)
    _check_stage(config, settings)
    ranks = Ranks(world_size(), gather_rows, sum_over_ranks)
    pretraining = Pretraining(RelVLM(config.model, vocab_size, len(relations)), ranks)
    if fresh:
        report = initialise(pretraining.model, config.init, relations, pretraining.teacher)
        if rank() == 0:
            log.info("%s", report.summary())
            with storage.writing(Path(config.out), "out"):
                Path(config.out).mkdir(parents=True, exist_ok=True)
                (Path(config.out) / "init.json").write_text(json.dumps(dataclasses.asdict(report), indent=1))
    return pretraining


def _build_engine(pretraining: Pretraining, config: Config, settings: dict[str, Any], device: torch.device) -> Any:
    pretraining.to(device)
    if pretraining.teacher is not None:
        pretraining.teacher.to(device)
    optimizer = build_optimizer(pretraining.model, config.optim)
    scheduler = build_scheduler(optimizer, config.optim, config.steps)
    return distributed.initialize(pretraining, optimizer, scheduler, config, settings)


def _train(
    config: Config,
    inputs: RunInputs,
    engine: Any,
    start: run_state.Progress,
    device: torch.device,
    told: Told,
    watch: Watchdog,
    flops: Flops = uncounted,
) -> Path:
    """The last checkpoint; after too many bad steps in a row the run goes back, on all ranks together."""
    while True:
        try:
            with dead_workers_named():
                return _train_from(config, inputs, engine, start, device, told, watch, flops)
        except trouble.TooManyBadSteps as found:
            watch.begin(config.deadlines.start, found.progress.step)
            watch.at("start")
            back = functools.partial(rollback.go_back, Path(config.out), found, config.max_rollbacks)
        start = _restore(engine, on_first_rank(back), config)


def _train_from(
    config: Config,
    inputs: RunInputs,
    engine: Any,
    start: run_state.Progress,
    device: torch.device,
    told: Told,
    watch: Watchdog,
    flops: Flops,
) -> Path:
    folder = Path(config.out) / "checkpoints"
    saver = Saver(folder, config, folder / checkpoints.name_of(start.step))
    loader = _build_loader(config, inputs, engine, start)
    watch.look_at_workers = WorkerWatch(loader.signs).look
    progress = start
    engine.train()
    monitor = Monitor(config, Path(config.out), start.step, device, flops, start.spiking)
    clock = monitor.clock
    with contextlib.closing(monitor), contextlib.closing(saver), collectives_timed(clock):
        for step in range(start.step + 1, config.steps + 1):
            watch.begin_step(step, start.step + 1)
            watch.at("data")
            asked = told.ask()
            with clock.phase("data"):
                chunks = [chunk.to(device) for chunk in next(loader)]
            lr = engine.optimizer.param_groups[0]["lr"]
            run_state.seed_step(config.seed, step + start.data_offset)
            update = train_step(engine, chunks, clock, watch.at)
            progress = trouble.counted(progress, update.stepped)
            if not update.stepped:
                trouble.report_skipped(progress, chunks[0])
            watch.at("agree")
            with clock.phase("communication"):
                ends = told.agreed(asked)
            monitor.record(step, chunks, lr, update, progress.skipped_in_all)
            save = ends or step % config.checkpoint.every == 0 or step == config.steps
            watch.at("log")
            if save or step % config.log_every == 0 or trouble.is_too_much(progress, config):
                monitor.flush()
                progress = dataclasses.replace(progress, spiking=monitor.spikes.in_a_row)
            if trouble.is_too_much(progress, config):
                saver.wait(config.checkpoint.max_failed)
                raise trouble.TooManyBadSteps(progress, trouble.diagnosis(progress, chunks[0], update.values))
            if save:
                watch.begin(config.deadlines.save, step)
                watch.at("save")
                with clock.phase("saving"):
                    saver.save(engine, progress)
            if ends:
                break
        watch.begin(config.deadlines.save, progress.step)
        watch.at("save")
        last = saver.wait()
    if rank() == 0 and (left_out := str(monitor.left_out)):
        log.info("left out by the loaders of all ranks, after step %d: %s", start.step, left_out)
    return last


def _build_loader(config: Config, inputs: RunInputs, engine: Any, start: run_state.Progress) -> Loader:
    return build_loader(
        config.data,
        inputs.streams,
        inputs.sets,
        image_size=config.model.image_size,
        patch_size=config.model.image_size // engine.module.model.vision.grid[0],
        seed=config.seed,
        start_step=start.step,
        rank=rank(),
        world_size=world_size(),
        low_resolution=config.low_resolution,
        accumulate=config.accumulate,
        data_offset=start.data_offset,
    )
