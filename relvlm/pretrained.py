"""A model folder that stands alone: `model.safetensors`, `config.json`, `vocab.txt`; load, write, find.

`config.json` describes the model and holds its relations; by its `model_type` transformers' Auto classes know what it
is, once `relvlm.hub` is imported. Beside them `teacher.pt` may lie, the state of a momentum teacher that a training
goes on with.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from relvlm import checkpoints
from relvlm.config.load import model_config
from relvlm.config.schema import Config
from relvlm.data.batches.regions import read_relations
from relvlm.data.text import Tokenizer
from relvlm.errors import UserError
from relvlm.model import RelVLM
from relvlm.storage import sync, sync_one, writing

MODEL_TYPE = "relvlm"  # to transformers
# What config.json must hold
DESCRIPTION: dict[str, type] = {"step": int, "model": dict, "vocab_size": int, "relations": list, "data": dict}


def load(path: str | Path) -> RelVLM:
    """A model in eval mode, ready to score, of a checkpoint folder or of a run (its latest).

    It carries `tokenizer` (where the folder has a vocab.txt), `relation_names`, `sep` and `step`. Raises UserError
    where the folder is no checkpoint.
    """
    folder = checkpoint_folder(Path(path))
    saved = read_description(folder)
    tensors = read_tensors(folder / "model.safetensors")
    config = model_config(saved["model"], str(folder / "config.json"))
    model = RelVLM(config, saved["vocab_size"], len(saved["relations"]))
    if "text.embeddings.word.weight" in tensors:
        tensors["mlm_head.decoder.weight"] = tensors["text.embeddings.word.weight"]  # tied, stored once
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise UserError(f"{folder}: model.safetensors is not of the model in config.json: {error}") from error
    if saved["data"].get("vocab") or (folder / "vocab.txt").exists():  # a converted one may have come without
        model.tokenizer = _tokenizer(folder / "vocab.txt", saved["vocab_size"])
    model.relation_names = saved["relations"]
    model.step = saved["step"]
    model.sep = saved["data"]["sep"]
    return model.eval()


def _tokenizer(vocab: Path, words: int) -> Tokenizer:
    tokenizer = Tokenizer(vocab)
    if tokenizer.vocab_size != words:
        raise UserError(f"{vocab}: {tokenizer.vocab_size} tokens, the model beside it has {words}")
    return tokenizer


def checkpoint_folder(path: Path) -> Path:
    """`path` itself, or the latest checkpoint of a run; UserError where it is neither."""
    if (path / "config.json").exists():
        return path
    newest = latest(path / "checkpoints") or latest(path)
    if newest is None:
        raise UserError(f"{path}: neither a checkpoint (no config.json) nor a run with checkpoints/step_*")
    return newest


def latest(folder: Path) -> Path | None:
    """The newest checkpoint of a run, found by looking, or None. Its files are not checked here."""
    return next(reversed(checkpoints.saved(folder)), None)


def read_description(folder: Path) -> dict[str, Any]:
    """config.json; UserError where it is not the description of a checkpoint."""
    path = folder / "config.json"
    try:
        description = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not readable: {error}") from error
    check_description(description, path)
    return description


def check_description(description: Any, path: Path | str) -> None:
    """UserError naming what config.json lacks, or has in another type."""
    missing = DESCRIPTION.keys() - (description.keys() if isinstance(description, dict) else set())
    if missing:
        raise UserError(f"{path}: no {', '.join(sorted(missing))}: not the description of a relvlm checkpoint")
    for key, kind in DESCRIPTION.items():
        if type(description[key]) is not kind:
            raise UserError(f"{path}: {key}: expected {kind.__name__}, found {description[key]!r}")
    if type(description["data"].get("sep")) is not bool:
        raise UserError(f"{path}: data.sep: expected true or false, found {description['data'].get('sep')!r}")


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """A safetensors file; UserError where it cannot be read."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: not readable: {error}") from error


def read_teacher(folder: Path) -> dict[str, Any]:
    """State of the momentum teacher; UserError where the folder has none."""
    path = folder / "teacher.pt"
    try:
        state = torch.load(path, weights_only=True)
    except Exception as error:  # of bytes that are no pickle, its reader raises whatever they lead to
        raise UserError(f"{path}: not readable: {str(error) or type(error).__name__}") from error
    if not isinstance(state, dict):
        raise UserError(f"{path}: holds a {type(state).__name__}, not the state of a teacher")
    return state


def relations_of(config: Config) -> list[str]:
    """The relation vocabulary of a run, in the loader's order; empty where the model has no use for one."""
    if not (config.model.relations and config.data.relations):
        return []
    return list(read_relations(config.data.relations_file))


def write_alone(
    final: Path,
    tensors: dict[str, torch.Tensor],
    teacher: dict[str, Any],
    config: Config,
    extra: dict[str, Any],
) -> None:
    """A whole checkpoint folder without a run's state, at step 0: what `load` and `init.checkpoint` take.

    `extra` goes into config.json; without a `config.data.vocab` there is no vocab.txt.
    """
    temporary = final.with_name(f".{final.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with writing(final, needed=sum(tensor.nbytes for tensor in tensors.values())):
            temporary.mkdir(parents=True)
            if teacher:
                torch.save(teacher, temporary / "teacher.pt")
            write_model(temporary, tensors, config, 0, extra)
            sync(temporary)
            temporary.rename(final)
            sync_one(final.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_model(
    folder: Path,
    tensors: dict[str, torch.Tensor],
    config: Config,
    step: int,
    extra: dict[str, Any] | None = None,
) -> None:
    write_tensors(folder / "model.safetensors", tensors)
    description = {
        "model_type": MODEL_TYPE,
        "step": step,
        "name": config.name,
        "model": dataclasses.asdict(config.model),
        "vocab_size": tensors["text.embeddings.word.weight"].shape[0],
        "relations": relations_of(config),
        "data": dataclasses.asdict(config.data),
        **(extra or {}),
    }
    (folder / "config.json").write_text(description_text(description))
    if config.data.vocab:
        shutil.copyfile(config.data.vocab, folder / "vocab.txt")


def write_tensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """The same bytes as transformers' `save_pretrained` writes."""
    save_file(tensors, path, {"format": "pt"})


def description_text(description: dict[str, Any]) -> str:
    """Of config.json."""
    return json.dumps(description, indent=1)
