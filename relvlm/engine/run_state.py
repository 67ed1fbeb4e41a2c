"""What resumes a run: a snapshot of a step, how it is written, and how any number of ranks goes on from it.

A checkpoint holds each rank's part of the training state by parameter name (state_files.py), the momentum teacher, how
far the run was (`progress.json`), what it was told (`run.json`, resume.py) and a model that stands alone
(relvlm/pretrained.py). Samples and random numbers are functions of the step, so nothing else needs to be kept.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import random
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from relvlm import checkpoints, storage
from relvlm.config.schema import Config
from relvlm.data.text import text_key
from relvlm.engine import slices, state_files
from relvlm.engine.resume import RUN
from relvlm.errors import UserError
from relvlm.pretrained import read_teacher, write_model
from relvlm.ranks import rank, world_size

PROGRESS = "progress.json"
FEWEST_BYTES_A_PARAMETER = 16  # of a checkpoint: the state's weight and two moments, and the model beside it


@dataclass(frozen=True)
class Progress:
    """How far a run is after a step."""

    step: int = 0
    updates: int = 0  # of the weights: steps that were not skipped
    schedule: int = 0  # where the learning rate's schedule is
    skipped: int = 0  # steps skipped in a row up to here; no checkpoint with any is a good one
    skipped_in_all: int = 0
    spiking: int = 0  # losses in a row that are spikes; as `skipped`
    data_offset: int = 0  # how many steps' samples have been passed over (rollback.py)
    rollbacks: int = 0


@dataclass(frozen=True)
class Snapshot:
    """Copies of what is written of a step; `model` and `teacher` on rank 0 alone."""

    progress: Progress
    state: dict[str, torch.Tensor]
    model: dict[str, torch.Tensor]
    teacher: dict[str, Any]

    @property
    def bytes(self) -> int:
        """About what all ranks write."""
        return world_size() * sum(x.nbytes for x in self.state.values()) + sum(x.nbytes for x in self.model.values())


def snapshot(engine: Any, progress: Progress) -> Snapshot:
    """Copy the state after the step of `progress`, to which the engine's counts are added; every rank must call it."""
    own = slices.held(engine)
    if engine.zero_optimization_stage() == 0:  # every rank has everything
        own = own[rank() :: world_size()]
    progress = dataclasses.replace(progress, updates=slices.updates(engine), schedule=engine.lr_scheduler.last_epoch)
    teacher = engine.module.teacher
    return Snapshot(
        progress,
        state_files.staged(own),
        full_tensors(engine),
        {} if rank() or teacher is None else {k: _copy(v) for k, v in teacher.state_dict().items()},
    )


def write(made: Snapshot, folder: Path, config: Config) -> dict[str, dict[str, Any]]:
    """Write this rank's files of a snapshot into `folder`, to the disk; returns their records for the manifest."""
    own = folder / state_files.file_of(rank())
    state_files.write(own, made.state)
    paths = [own]
    if rank() == 0:
        if made.teacher:
            torch.save(made.teacher, folder / "teacher.pt")
        write_model(folder, made.model, config, made.progress.step)
        (folder / PROGRESS).write_text(json.dumps(dataclasses.asdict(made.progress)))
        if (run := Path(config.out) / RUN).exists():
            shutil.copyfile(run, folder / RUN)
        # other ranks write there, too: hidden files are theirs
        paths += [p for p in folder.glob("[!.]*") if not p.match(state_files.PATTERN)]
    for path in paths:
        storage.sync_one(path)
    return {path.name: checkpoints.file_record(path) for path in paths}


def restore(engine: Any, checkpoint: Path) -> Progress:
    """Go on from a checkpoint of any number of ranks, any ZeRO stage and either dtype; every rank must call it.

    Raises UserError where it is of another model, or lacks the state of a run.
    """
    state, own = state_files.StateFiles(checkpoint), slices.held(engine)
    if others := {each.name for each in own} - state.names():
        raise UserError(f"{checkpoint}: has no state of {min(others)} and {len(others) - 1} others (another model)")
    for each in own:
        state.read_into(each)
    progress = read_progress(checkpoint)
    slices.set_updates(engine, progress.updates)
    slices.refresh(engine)
    engine.lr_scheduler.last_epoch = progress.schedule
    if engine.module.teacher is not None:
        engine.module.teacher.load_state_dict(read_teacher(checkpoint))
    return progress


def read_progress(checkpoint: Path) -> Progress:
    """How far the run of a checkpoint was; UserError where it does not say."""
    path = checkpoint / PROGRESS
    try:
        return Progress(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path}: not readable: {error}") from error


def full_tensors(engine: Any) -> dict[str, torch.Tensor]:
    """Copies of the model's tensors on rank 0's CPU in fp32, tied ones once; gathered from all ranks under ZeRO-3."""
    state = {} if rank() else engine.module.model.state_dict()
    if engine.zero_optimization_stage() == 3:
        whole = engine._zero3_consolidated_16bit_state_dict() or {}
        state = {k.removeprefix("model."): v for k, v in whole.items() if k.startswith("model.")}
    state.pop("mlm_head.decoder.weight", None)
    return {k: v.detach().to("cpu", torch.float32, copy=True).contiguous() for k, v in state.items()}


def _copy(value: Any) -> Any:
    return value.detach().to("cpu", copy=True) if isinstance(value, torch.Tensor) else value


def check_room(model: torch.nn.Module, out: Path) -> None:
    """Raise DiskError where not even one checkpoint would fit (quotas are not seen)."""
    needed = FEWEST_BYTES_A_PARAMETER * sum(getattr(p, "ds_numel", p.numel()) for p in model.parameters())
    usage = shutil.disk_usage(storage.existing(out))
    if usage.free < needed and usage.total:  # some network disks say 0 of both
        raise storage.disk_error(out, OSError(errno.ENOSPC, "No space for a checkpoint"), "out", needed)


def seed_everything(seed: int) -> None:
    """Of new weights."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def seed_step(seed: int, step: int) -> None:
    """Random numbers of a step (dropout): of each rank its own, from (seed, step, rank) alone."""
    torch.manual_seed(text_key(f"{seed}/step {step}/rank {rank()}") & (2**63 - 1))
