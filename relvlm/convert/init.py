"""What a training starts from: pretrained backbones, a checkpoint of ours, or random weights on purpose."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from relvlm.config.load import model_config
from relvlm.config.schema import ModelConfig
from relvlm.config.training import RANDOM, InitConfig
from relvlm.convert.backbones import fit, read_bert, read_vision
from relvlm.convert.links import check_names
from relvlm.convert.names import TIED
from relvlm.errors import UserError
from relvlm.model import RelVLM
from relvlm.pretrained import checkpoint_folder, read_description, read_teacher, read_tensors
from relvlm.pretraining.teacher import Teacher
from relvlm.storage import sha256

OPTIONAL_HEADS = ("box_head.", "mrc_head.")  # a checkpoint may lack these, or have them for nothing


@dataclass
class Report:
    """Names of our tensors: loaded as they were, resized, and new; names in the sources that had no use."""

    sources: dict[str, str] = field(default_factory=dict)  # file: sha256
    loaded: list[str] = field(default_factory=list)
    resized: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)

    def summary(self) -> str:
        """One line for the log."""
        files = ", ".join(f"{file} (sha256 {digest[:12]})" for file, digest in self.sources.items())
        counts = f"{len(self.loaded)} loaded, {len(self.resized)} of them resized, {len(self.new)} new"
        return f"tensors: {counts}; from {files or 'nowhere, at random'}"


def check_init(init: InitConfig) -> None:
    """UserError where the config does not say what to start from, or names what is not there."""
    if init.checkpoint:
        if init.vision or init.text:
            raise UserError("init: name a checkpoint or backbones, not both")
        checkpoint_folder(Path(init.checkpoint))
        return
    for name, value in (("vision", init.vision), ("text", init.text)):
        if value is None:
            raise UserError(
                f"init.{name}: nothing to start from (a local Hugging Face folder; or, on purpose, `init: random`)"
            )
        if value != RANDOM and not Path(value).exists():
            raise UserError(
                f"init.{name}: no folder or file {value!r} (the weights in Hugging Face format; or `init: random`)"
            )


def initialise(model: RelVLM, init: InitConfig, relations: list[str], teacher: Teacher | None = None) -> Report:
    """Load into a new model what `init` names; its teacher starts as its copy where `init` brings none."""
    report = Report()
    if init.checkpoint:
        folder = checkpoint_folder(Path(init.checkpoint))
        _from_checkpoint(model, folder, relations, report)
        if teacher is not None and (folder / "teacher.pt").exists():
            _load_teacher(teacher, folder, report)
    for path, read in ((init.vision, read_vision), (init.text, read_bert)):
        if path not in (None, RANDOM):
            backbone = read(Path(path), model.config)
            report.sources[str(backbone.file)] = sha256(backbone.file)
            report.unused += backbone.unused
            _load(model, backbone.ours, str(backbone.file), report)
    report.new = sorted(set(model.state_dict()) - set(report.loaded) - {TIED})
    if teacher is not None and "teacher" not in report.loaded:
        teacher.copy(model)
    return report


def _from_checkpoint(model: RelVLM, folder: Path, relations: list[str], report: Report) -> None:
    description = read_description(folder)
    _check_heads(model_config(description["model"], str(folder / "config.json")), model.config, folder)
    file = folder / "model.safetensors"
    tensors = read_tensors(file)
    report.sources[str(file)] = sha256(file)
    if description["relations"] != relations:  # the classes mean something else
        report.unused += [name for name in tensors if name.startswith("mrc_head.")]
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("mrc_head.")}
    own = set(model.state_dict()) - {TIED}
    spare = {name for name in set(tensors) - own if name.startswith(OPTIONAL_HEADS)}
    report.unused += sorted(spare)
    optional = {name for name in own - set(tensors) if name.startswith(OPTIONAL_HEADS)}
    check_names(own - optional, set(tensors) - spare, str(file))
    _load(model, {k: t for k, t in tensors.items() if k not in spare}, str(file), report)


def _check_heads(there: ModelConfig, here: ModelConfig, folder: Path) -> None:
    """Heads share a width, so that no shape tells how many there are."""
    for part in ("vision", "text", "fusion"):
        theirs, ours = (getattr(model, part).heads for model in (there, here))
        if type(theirs) is type(ours) and theirs != ours:  # names tell a Swin, whose stages have theirs each
            raise UserError(
                f"init.checkpoint: {folder} has model.{part}.heads={theirs}, the config {ours}: other attention on the "
                "same weights (set it to the checkpoint's)"
            )


def _load_teacher(teacher: Teacher, folder: Path, report: Report) -> None:
    state = read_teacher(folder)
    wanted = teacher.state_dict()
    check_names(set(wanted), set(state), str(folder / "teacher.pt"))
    fitted = {
        name: fit(name, value, wanted[name], str(folder / "teacher.pt")) if isinstance(value, Tensor) else value
        for name, value in state.items()
    }  # fmt: skip
    teacher.load_state_dict(fitted)
    report.sources[str(folder / "teacher.pt")] = sha256(folder / "teacher.pt")
    report.loaded.append("teacher")


@torch.no_grad()
def _load(model: RelVLM, tensors: dict[str, Tensor], origin: str, report: Report) -> None:
    own = model.state_dict()
    for name, tensor in tensors.items():
        fitted = fit(name, tensor, own[name], origin)
        own[name].copy_(fitted)
        report.loaded.append(name)
        if fitted.shape != tensor.shape:
            report.resized.append(name)
