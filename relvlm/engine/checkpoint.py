"""Checkpoints: folders `step_0001000/`, written under a temporary name, synced, renamed; `latest` moves last.

A folder holds DeepSpeed's state (`deepspeed/`), every rank's RNG, and a model that stands alone:
`model.safetensors`, `model.json`, `vocab.txt`, `relations.txt`. The loader needs no state: its plan is a function
of the step.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from relvlm.config.load import model_config
from relvlm.config.schema import Config
from relvlm.data.batches import regions
from relvlm.engine.distributed import barrier, rank
from relvlm.errors import UserError
from relvlm.model import Gather, RelVLM, one_rank

# settings that say how a model is trained, not what it is
HOW_NOT_WHAT = {"savings", "recompute", "compile", "vision.patch_keep"}
DESCRIPTION = {"step", "model", "vocab_size", "relations", "data"}  # what model.json must hold


def save(engine: Any, folder: Path, step: int, config: Config) -> Path:
    """Write checkpoint `step` of a run; every rank must call it. Returns its folder."""
    final = folder / f"step_{step:07d}"
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
        _write_model(temporary, tensors, config, step)
    barrier()
    if rank() == 0:
        _sync(temporary)
        shutil.rmtree(final, ignore_errors=True)
        temporary.rename(final)
        _sync_one(folder)
        _point_latest(folder, final.name)
        _prune(folder, final.name, config.checkpoint.keep)
    barrier()
    return final


def restore(engine: Any, checkpoint: Path) -> int:
    """Load DeepSpeed's state and this rank's RNG; returns the step to go on from."""
    engine.load_checkpoint(str(checkpoint), tag="deepspeed")
    own = checkpoint / f"rng_{rank():05d}.pt"
    if not own.exists():
        raise UserError(f"{own}: missing: the run had fewer processes (start it with as many as before)")
    if engine.module.teacher is not None:
        engine.module.teacher.load_state_dict(read_teacher(checkpoint))
    _set_rng_state(torch.load(own, weights_only=True))
    return int(json.loads((checkpoint / "model.json").read_text())["step"])


def latest(folder: Path) -> Path | None:
    """The newest complete checkpoint of a run, or None."""
    pointer = folder / "latest"
    return folder / pointer.read_text().strip() if pointer.exists() else None


def check_same_model(checkpoint: Path, config: Config, relations: list[str], vocab_size: int) -> None:
    """UserError naming each setting in which the checkpoint's model differs from the config's."""
    saved = read_description(checkpoint)
    mine: dict[str, object] = _flat(dataclasses.asdict(config.model))
    theirs = _flat(saved["model"])
    mine |= {"relations": relations, "vocab_size": vocab_size}
    theirs |= {"relations": saved["relations"], "vocab_size": saved["vocab_size"]}
    what = [k for k in mine.keys() | theirs.keys() if not {k, k.split(".")[0]} & HOW_NOT_WHAT]
    differ = [k for k in what if mine.get(k) != theirs.get(k)]
    if differ:
        shown = "; ".join(f"{k}: {theirs.get(k)!r} there, {mine.get(k)!r} here" for k in sorted(differ)[:5])
        raise UserError(
            f"{checkpoint}: is of another model ({shown[:600]}); set another `out` or checkpoint.resume=false"
        )


def load(path: str | Path, gather: Gather = one_rank) -> RelVLM:
    """A model in eval mode, ready to score, of a checkpoint folder or of a run (its latest).

    It carries `tokenizer` (where the folder has a vocab.txt), `relation_names` and `step`. Raises UserError where the
    folder is no checkpoint.
    """
    from relvlm.data.text import Tokenizer

    folder = checkpoint_folder(Path(path))
    saved = read_description(folder)
    tensors = read_tensors(folder / "model.safetensors")
    config = dataclasses.replace(model_config(saved["model"]), compile=False)  # scoring is soon done
    model = RelVLM(config, saved["vocab_size"], len(saved["relations"]), gather)
    tensors["mlm_head.decoder.weight"] = tensors["text.embeddings.word.weight"]  # tied, stored once
    model.load_state_dict(tensors)
    if model.teacher is not None:
        model.teacher.load_state_dict(read_teacher(folder))
    if saved["data"].get("vocab") or (folder / "vocab.txt").exists():  # a converted one may have come without
        model.tokenizer = Tokenizer(folder / "vocab.txt")
    model.relation_names = saved["relations"]
    model.step = saved["step"]
    model.sep = saved["data"]["sep"]
    return model.eval()


def full_tensors(engine: Any) -> dict[str, torch.Tensor]:
    """The model's tensors on the CPU in fp32, tied ones once; gathered from all ranks under ZeRO-3."""
    state = engine.module.state_dict()
    if engine.zero_optimization_stage() == 3:
        state = engine._zero3_consolidated_16bit_state_dict() or {}
    state.pop("mlm_head.decoder.weight", None)
    return {k: v.detach().to("cpu", torch.float32).contiguous() for k, v in state.items()}


def read_relations(config: Config) -> list[str]:
    """The relation vocabulary of a run, in the loader's order; empty where the model has no use for one."""
    if not (config.model.relations and config.data.relations):
        return []
    return list(regions.read_relations(Path(config.data.relations)))


def write_alone(
    final: Path,
    tensors: dict[str, torch.Tensor],
    teacher: dict[str, Any],
    config: Config,
    extra: dict[str, Any],
) -> None:
    """A whole checkpoint folder without a run's state, at step 0: what `load` and `init.checkpoint` take.

    `extra` goes into model.json; without a `config.data.vocab` there is no vocab.txt.
    """
    temporary = final.with_name(f".{final.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    if teacher:
        torch.save(teacher, temporary / "teacher.pt")
    _write_model(temporary, tensors, config, 0, extra)
    _sync(temporary)
    temporary.rename(final)
    _sync_one(final.parent)


def _write_model(
    folder: Path,
    tensors: dict[str, torch.Tensor],
    config: Config,
    step: int,
    extra: dict[str, Any] | None = None,
) -> None:
    save_file(tensors, folder / "model.safetensors")
    description = {
        "step": step,
        "name": config.name,
        "model": dataclasses.asdict(config.model),
        "vocab_size": tensors["text.embeddings.word.weight"].shape[0],
        "relations": read_relations(config),
        "data": dataclasses.asdict(config.data),
        **(extra or {}),
    }
    (folder / "model.json").write_text(json.dumps(description, indent=1))
    if config.data.vocab:
        shutil.copyfile(config.data.vocab, folder / "vocab.txt")


def read_teacher(folder: Path) -> dict[str, Any]:
    """State of the momentum teacher; UserError where the folder has none."""
    path = folder / "teacher.pt"
    try:
        return torch.load(path, weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError) as error:
        raise UserError(f"{path}: not readable: {error}") from error


def checkpoint_folder(path: Path) -> Path:
    """`path` itself, or the latest checkpoint of a run; UserError where it is neither."""
    if (path / "model.json").exists():
        return path
    newest = latest(path / "checkpoints") or latest(path)
    if newest is None:
        raise UserError(f"{path}: neither a checkpoint (no model.json) nor a run with checkpoints/latest")
    return newest


def read_description(folder: Path) -> dict[str, Any]:
    """model.json; UserError where it is not the description of a checkpoint."""
    path = folder / "model.json"
    try:
        description = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not readable: {error}") from error
    missing = DESCRIPTION - (description.keys() if isinstance(description, dict) else set())
    if missing:
        raise UserError(
            f"{path}: no {', '.join(sorted(missing))}: not the description of a relvlm checkpoint"
        )
    return description


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """A safetensors file; UserError where it cannot be read."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: not readable: {error}") from error


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


def _sync(top: Path) -> None:
    """fsync a file, or every file of a folder and then the folder, so that a rename cannot outrun the data."""
    for path in [*top.rglob("*"), top]:
        _sync_one(path)


def _sync_one(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def _point_latest(folder: Path, name: str) -> None:
    temporary = folder / ".latest.tmp"
    temporary.write_text(name)
    _sync_one(temporary)
    temporary.replace(folder / "latest")
    _sync_one(folder)


def _prune(folder: Path, newest: str, keep: int) -> None:
    """Keep `newest` and the `keep` - 1 before it. A later one, of a run that died before `latest` moved, is no
    reason to drop them.
    """
    if keep > 0:
        done = sorted(path for path in folder.glob("step_*") if path.name <= newest)
        for old in done[:-keep]:
            shutil.rmtree(old)


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
