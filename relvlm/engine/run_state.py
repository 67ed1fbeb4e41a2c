"""What resumes a run: folders `step_0001000/`, written under a temporary name, synced, renamed; `latest` moves last.

A folder holds DeepSpeed's state (`deepspeed/`), every rank's RNG, the momentum teacher, what the run was told
(`run.json`, relvlm/engine/resume.py) and a model that stands alone (relvlm/pretrained.py). The loader needs no state:
its plan is a function of the step.
"""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch

from relvlm import storage
from relvlm.config.schema import Config
from relvlm.engine.resume import RUN
from relvlm.errors import UserError
from relvlm.pretrained import latest, read_teacher, write_model
from relvlm.ranks import barrier, rank
from relvlm.storage import sync, sync_one

BYTES_A_PARAMETER = 16  # weights in fp32, the optimizer's copy and its two moments


def save(engine: Any, folder: Path, step: int, config: Config) -> Path:
    """Write checkpoint `step` of a run; every rank must call it. Returns its folder.

    Raises DiskError where it cannot be written; what was written of it is removed, and `latest` stays.
    """
    final = folder / f"step_{step:07d}"
    with storage.writing(final, needed=_needed(engine, folder)):
        try:
            _write(engine, folder, final, step, config)
        except Exception:
            if rank() == 0:
                clear(folder)
            raise
    return final


def _write(engine: Any, folder: Path, final: Path, step: int, config: Config) -> None:
    temporary = folder / f".{final.name}.tmp"
    if rank() == 0:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
    barrier()
    engine.save_checkpoint(str(temporary), tag="deepspeed", client_state={"step": step}, save_latest=False)
    torch.save(_rng_state(), temporary / f"rng_{rank():05d}.pt")
    tensors = full_tensors(engine)
    teacher = engine.module.teacher
    if rank() == 0 and teacher is not None:  # the same on every rank
        torch.save(teacher.state_dict(), temporary / "teacher.pt")
    if rank() == 0:
        write_model(temporary, tensors, config, step)
        if (folder.parent / RUN).exists():
            shutil.copyfile(folder.parent / RUN, temporary / RUN)
    barrier()
    if rank() == 0:
        sync(temporary)
        shutil.rmtree(final, ignore_errors=True)
        temporary.rename(final)
        sync_one(folder)
        _point_latest(folder, final.name)
        _prune(folder, final.name, config.checkpoint.keep)
    barrier()


def _needed(engine: Any, folder: Path) -> int:
    """Bytes of a checkpoint: as many as the newest has, or about what its parts come to."""
    newest = latest(folder)
    if newest and newest.is_dir():
        return storage.size(newest)
    return BYTES_A_PARAMETER * sum(getattr(p, "ds_numel", p.numel()) for p in engine.module.parameters())


def clear(folder: Path) -> None:
    """Remove what saves that did not end have left of themselves; only the one run of the folder may."""
    for left in [*folder.glob(".step_*.tmp"), *folder.glob(".latest.tmp")]:
        shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)


def restore(engine: Any, checkpoint: Path) -> int:
    """Load DeepSpeed's state and this rank's RNG; returns the step to go on from."""
    engine.load_checkpoint(str(checkpoint), tag="deepspeed")
    own = checkpoint / f"rng_{rank():05d}.pt"
    if not own.exists():
        raise UserError(f"{own}: missing: the run had fewer processes (start it with as many as before)")
    if engine.module.teacher is not None:
        engine.module.teacher.load_state_dict(read_teacher(checkpoint))
    _set_rng_state(torch.load(own, weights_only=True))
    return int(json.loads((checkpoint / "config.json").read_text())["step"])


def full_tensors(engine: Any) -> dict[str, torch.Tensor]:
    """The model's tensors on the CPU in fp32, tied ones once; gathered from all ranks under ZeRO-3."""
    state = engine.module.model.state_dict()
    if engine.zero_optimization_stage() == 3:
        whole = engine._zero3_consolidated_16bit_state_dict() or {}
        state = {k.removeprefix("model."): v for k, v in whole.items() if k.startswith("model.")}
    state.pop("mlm_head.decoder.weight", None)
    return {k: v.detach().to("cpu", torch.float32).contiguous() for k, v in state.items()}


def _rng_state() -> dict[str, Any]:
    state: dict[str, Any] = {"torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def _set_rng_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    if "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"])


def seed_everything(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def _point_latest(folder: Path, name: str) -> None:
    storage.write_whole(folder / "latest", name)


def _prune(folder: Path, newest: str, keep: int) -> None:
    """Keep `newest` and the `keep` - 1 before it. A later one, of a run that died before `latest` moved, is no
    reason to drop them.
    """
    if keep > 0:
        done = sorted(path for path in folder.glob("step_*") if path.name <= newest)
        for old in done[:-keep]:
            shutil.rmtree(old)
