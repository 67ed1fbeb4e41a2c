"""A run from its start to its end: check everything, make or restore what is trained, train it."""

from __future__ import annotations

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
from relvlm.data import decoders
from relvlm.data.batches.pools import check_ranks
from relvlm.engine import distributed, heartbeat, resume, rollback, run_state
from relvlm.engine.ending import clear_ending, note_ending
from relvlm.engine.inputs import check_words, read_inputs
from relvlm.engine.judging import Judge
from relvlm.engine.lease import Lease
from relvlm.engine.saver import clear
from relvlm.engine.schedule import build_optimizer, build_scheduler
from relvlm.engine.signals import Told
from relvlm.engine.steps import Training, restore
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


def run(config: Config, deepspeed_config: Path | None = None, judge: Judge | None = None) -> Path:
    """Train to `config.steps`, going on from the newest checkpoint in `config.out`; returns the last checkpoint.

    `judge` evaluates the checkpoints that `config.eval` asks for; without one none is.
    Raises UserError before any work for what can be known to fail, Stopped once it has saved where it is told to end.
    """
    settings = distributed.read_deepspeed_config(deepspeed_config)
    distributed.check_stage(config, settings)
    folder = Path(config.out) / "checkpoints"
    read = attempt_ahead(lambda: read_inputs(config, judge))
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
            start = restore(engine, newest, config) if newest else run_state.Progress()
            with Told(os.environ) as told:
                flops = functools.partial(step_flops, Sizes(config.model, inputs.vocab_size, len(inputs.relations)))
                last = Training(config, inputs, engine, device, told, watch, flops, judge).run(start)
                stop()
            if told.reason and last.name != checkpoints.name_of(config.steps):
                raise Stopped(told.reason, last)
            return last
    finally:
        if lease.path is not None:
            note_ending(Path(config.out), sys.exception())
        lease.release()


def _begin(config: Config, inputs: resume.Inputs, folder: Path) -> Path | None:
    """The checkpoint to go on from, and what a run says of itself at its start; rank 0, when the folder is its own."""
    rollback.remove_undone(Path(config.out))
    newest, faults = checkpoints.newest_whole(folder)
    if newest and checkpoints.step_of(newest) > config.steps:  # it would end at once, as if trained for less
        raise UserError(f"steps: {config.steps}: {newest} has more (set it to more, or another `out`)")
    if newest:
        notes = [f"goes on from {newest} with another {each}" for each in resume.check(newest, config, inputs)]
    else:
        notes = check_words(config)
    out = Path(config.out)
    with storage.writing(out, "out"):
        clear(folder)
        rollback.forget_if_before(out, newest)
        for damaged, fault in faults.items():
            log.warning("%s (goes on from %s; put aside as %s)", fault, newest, checkpoints.set_aside(damaged).name)
        clear_ending(out)
        dump(config, out / "config.yaml")
        storage.write_whole(out / resume.RUN, resume.description(config, inputs))
    for note in [
        *notes,
        *decoders.remarks(),
        *remarks(config),
        *(f"trained with {option}" for option in not_exact(config)),
    ]:
        log.info("%s", note)
    return newest


def build_pretraining(
    config: Config, settings: dict[str, Any], vocab_size: int, relations: list[str], fresh: bool
) -> Pretraining:
    """What to train; a `fresh` model starts from what `init` names, and rank 0 reports it (init.json)."""
    run_state.seed_everything(config.seed)
    distributed.check_stage(config, settings)
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
