"""Official checkpoints as our models, and back."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, get_args

import torch
from torch import Tensor

from relvlm.config.check import model_problems
from relvlm.config.schema import ModelConfig
from relvlm.config.vision import SwinConfig
from relvlm.convert.links import Tensors, check_names, to_ours, to_theirs
from relvlm.convert.names import TEACHER, TIED, Family, official_links
from relvlm.convert.sizes import describe
from relvlm.convert.variants import complete, published
from relvlm.encoders.position import resize_bias_table, resize_positions
from relvlm.errors import UserError
from relvlm.model import RelVLM
from relvlm.pretraining.step import Pretraining

WORDS = "text.embeddings.word.weight"
FOLLOW_SIZE = ("relative_position_index", "attn_mask", "vision_encoder.position_ids")


@dataclass(frozen=True)
class Converted:
    """A model's config and tensors (ours; the teacher's prefixed) made of an official file.

    `new`: ours that the file has not, here with random values; `unused`: the file's that ours has no place for.
    """

    config: ModelConfig
    tensors: dict[str, Tensor]
    new: list[str]
    unused: list[str]


def from_official(state_dict: Tensors, config: Mapping[str, Any], family: Family) -> RelVLM:
    """The model, in eval mode, of an official `state_dict` and its configuration; `family` "albef" or "xvlm".

    Where `config` asks for another image or window size, position tables are interpolated as the official codes do.
    ALBEF's momentum encoders are left to `teacher_from_official`. What the file has not (a fine-tuned one has no MLM
    head) is random, with a warning that names it. Raises UserError listing every other key that is missing or unknown.
    """
    converted = convert(state_dict, config, family)
    if converted.new:
        warnings.warn(f"not in the checkpoint, so at random: {', '.join(converted.new)}", stacklevel=2)
    words = converted.tensors[WORDS]
    model = RelVLM(converted.config, len(words), relations=0)
    if words.dtype == torch.float64:
        model.double()
    try:
        model.load_state_dict(split(converted.tensors)[0])
    except RuntimeError as error:
        raise UserError(f"tensors do not fit the model of this configuration: {error}") from error
    return model.eval()


def teacher_from_official(state_dict: Tensors, config: Mapping[str, Any], family: Family) -> dict[str, Any] | None:
    """The state of `Pretraining.teacher` (momentum encoders, queues); None where the file has no such thing."""
    _, teacher = split(convert(state_dict, config, family).tensors)
    return teacher | {"_extra_state": {"seen": 0}} if teacher else None


def to_official(model: RelVLM, family: Family, teacher: Mapping[str, Any] | None = None) -> dict[str, Tensor]:
    """The official state_dict of a model and of the state of its `teacher`, which ALBEF's has.

    Raises UserError where a part is missing, or is there that the official model has not.
    """
    return back(tensors_of(model, teacher or {}), model.config, family)


def convert(
    state_dict: Tensors,
    config: Mapping[str, Any],
    family: Family,
    origin: str = "state_dict",
    image_size: int = 0,
) -> Converted:
    """An official state_dict as ours; `image_size` 0 is the config's."""
    if family not in get_args(Family):
        raise UserError(f"family: {family!r} is none of {', '.join(get_args(Family))}")
    source = published(state_dict, family, origin)
    described = describe(source.tensors, config, family)
    described = replace(described, image_size=image_size or described.image_size)
    for problem in model_problems(described):
        raise UserError(f"{origin}: as {family}: {problem}")
    links = official_links(described, family)
    kept, tensors = complete(links, resize(source.tensors, described, family))
    ours = to_ours(kept, tensors, origin)
    new = sorted({link.ours for link in links} - {link.ours for link in kept})
    return Converted(described, ours | _at_random(described, ours, new), new, source.unused)


def _at_random(config: ModelConfig, ours: Tensors, new: list[str]) -> dict[str, Tensor]:
    if not new:
        return {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        whole = Pretraining(RelVLM(config, len(ours[WORDS]), relations=0))
    tensors = tensors_of(whole.model, whole.teacher.state_dict() if whole.teacher else {})
    return {name: tensors[name].to(ours[WORDS].dtype) for name in new}


def back(ours: Tensors, config: ModelConfig, family: Family, origin: str = "model") -> dict[str, Tensor]:
    """The official tensors of ours."""
    return to_theirs(official_links(config, family), ours, origin)


def resize(tensors: Tensors, config: ModelConfig, family: Family) -> dict[str, Tensor]:
    """The tensors with position tables of the size in `config`; what follows from sizes alone is made anew then."""
    links = official_links(config, family)
    derived = {
        link.theirs[0]: link.value for link in links if link.value is not None and link.theirs[0].endswith(FOLLOW_SIZE)
    }
    known = {name for link in links for name in link.theirs}
    resized = {name: _resized(name, t, config) if name in known else t for name, t in tensors.items()}
    changed = any(resized[name].shape != tensor.shape for name, tensor in tensors.items())
    found = {name: tensor for name, tensor in tensors.items() if name.endswith(FOLLOW_SIZE)}
    changed |= any(found[name].shape != derived[name].shape for name in found.keys() & derived.keys())
    changed |= _has_masks(found) != _has_masks(derived)
    if changed:
        resized = {name: tensor for name, tensor in resized.items() if name not in found} | derived
    return resized


def _has_masks(tensors: Tensors) -> bool:
    return any(name.endswith("attn_mask") for name in tensors)


def _resized(name: str, tensor: Tensor, config: ModelConfig) -> Tensor:
    vision, side = config.vision, config.image_size // config.vision.patch_size
    if isinstance(vision, SwinConfig) and name.endswith("relative_position_bias_table"):
        stage = int(name.split(".layers.")[1].split(".")[0])
        return resize_bias_table(tensor, min(vision.window, side // 2**stage))
    if name.endswith("pos_embed.weight"):
        return resize_positions(tensor[None], side)[0]
    return resize_positions(tensor, side) if name.endswith("pos_embed") else tensor


def tensors_of(model: RelVLM, teacher: Mapping[str, Any]) -> dict[str, Tensor]:
    """Every tensor of a model and of its teacher's state, prefixed; tied ones once."""
    tensors = dict(model.state_dict())
    tensors |= {TEACHER + k: t for k, t in teacher.items() if isinstance(t, Tensor)}
    return {k: t for k, t in tensors.items() if k.removeprefix(TEACHER) != TIED}


def check_shapes(config: ModelConfig, ours: Tensors, origin: str) -> None:
    """UserError naming what does not fit the model that `config` describes."""
    with torch.device("meta"):
        whole = Pretraining(RelVLM(config, len(ours[WORDS]), relations=0))
        expected = tensors_of(whole.model, whole.teacher.state_dict() if whole.teacher else {})
    check_names(set(expected), set(ours), origin)
    for name, tensor in expected.items():
        if tensor.shape != ours[name].shape:
            shapes = f"{tuple(ours[name].shape)}, the configuration says {tuple(tensor.shape)}"
            raise UserError(f"{origin}: {name} (ours): is {shapes}")


def split(ours: Tensors, tied: bool = True) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The model's state_dict and the teacher's, `tied` tensors under both names or once."""
    student = {k: t for k, t in ours.items() if not k.startswith(TEACHER)}
    teacher: dict[str, Any] = {k.removeprefix(TEACHER): t for k, t in ours.items() if k.startswith(TEACHER)}
    for tensors in (student, teacher):
        if tied and WORDS in tensors:
            tensors[TIED] = tensors[WORDS]
    return student, teacher
