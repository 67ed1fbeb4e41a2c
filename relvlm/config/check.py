"""What types cannot say of a config: numbers in range, sizes that divide, and data for every kind that is drawn."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from relvlm.config.schema import Config, DataConfig, ModelConfig
from relvlm.config.vision import SwinConfig, ViTConfig
from relvlm.kinds import KINDS, datasets_of


def problems(config: Config) -> Iterator[str]:
    """One line for each thing wrong, beginning with the field."""
    yield from (
        *_numbers(config),
        *model_problems(config.model),
        *_low_resolution(config),
        *_kinds(config),
        *_lengths(config),
    )


def _numbers(config: Config) -> Iterator[str]:
    positive = {
        "steps": config.steps,
        "log_every": config.log_every,
        "accumulate": config.accumulate,
        "checkpoint.every": config.checkpoint.every,
        "optim.lr": config.optim.lr,
    }
    for name, value in positive.items():
        if not 0 < value < float("inf"):
            yield f"{name}: {value}: must be positive"
    if len(config.optim.betas) != 2:
        yield f"optim.betas: expected two numbers, found {config.optim.betas}"


def model_problems(model: ModelConfig) -> Iterator[str]:
    """One line for each size of the model that does not go with another."""
    vision = model.vision
    yield from _vit(vision, model) if isinstance(vision, ViTConfig) else _swin(vision, model)
    yield from _heads("model.text.heads", model.text.heads, model.text.width)
    yield from _heads("model.fusion.heads", model.fusion.heads, model.text.width)
    if model.image_size % vision.patch_size:
        yield f"model.image_size: {model.image_size} is no multiple of patch_size {vision.patch_size}"


def _vit(vision: ViTConfig, model: ModelConfig) -> Iterator[str]:
    yield from _heads("model.vision.heads", vision.heads, vision.width)
    if not 0 < vision.patch_keep <= 1:
        yield f"model.vision.patch_keep: {vision.patch_keep}: must be above 0 and at most 1"
    if model.fusion.region_mask == "late_vision" and not 0 < vision.late_blocks <= vision.layers:
        yield f"model.vision.late_blocks: {vision.late_blocks}: must be within the {vision.layers} layers"


def _swin(vision: SwinConfig, model: ModelConfig) -> Iterator[str]:
    if len(vision.heads) != len(vision.depths):
        yield f"model.vision.heads: {vision.heads}: one number for each stage of depths {vision.depths}"
    for stage, heads in enumerate(vision.heads):
        yield from _heads(f"model.vision.heads[{stage}]", heads, vision.width * 2**stage)
    if model.fusion.region_mask == "late_vision":
        yield "model.fusion.region_mask: late_vision needs a ViT, a Swin has windows"


def _heads(name: str, heads: int, width: int) -> Iterator[str]:
    if heads < 1 or width % heads:
        yield f"{name}: {heads} does not divide the width {width}"


def _low_resolution(config: Config) -> Iterator[str]:
    """A Swin needs the grid that its windows divide."""
    model, low, patch = config.model, config.low_resolution, config.model.vision.patch_size
    if not 0 <= low.steps < config.steps:
        yield f"low_resolution.steps: {low.steps}: must be within the {config.steps} steps and leave some at full size"
    if low.steps and isinstance(model.vision, SwinConfig):
        yield "low_resolution.steps: needs a ViT, a Swin is built for one image size (set it to 0)"
    elif low.steps and low.image_size not in range(patch, model.image_size, patch):
        yield (
            f"low_resolution.image_size: {low.image_size}: must be a multiple of patch_size {patch} "
            f"below model.image_size {model.image_size}"
        )


def _kinds(config: Config) -> Iterator[str]:
    model, data = config.model, config.data
    if not data.drawn:
        yield "data.ratio: every kind is 0, there is nothing to train on"
    for kind in data.drawn:
        section = datasets_of(kind)
        if not getattr(data, section):
            yield f"data.{section}: empty, but data.ratio.{kind} draws from it (add a path)"
        if getattr(data.batch, kind) <= 0:
            yield f"data.batch.{kind}: must be positive, data.ratio.{kind} draws it"
    for name, weight in dataclasses.asdict(data.joint_weights).items():
        if not 0 <= weight < float("inf"):
            yield f"data.joint_weights.{name}: {weight}: must not be negative"
    if data.ratio.joint > 0 and not data.trained:
        yield "data.joint_weights: every kind is 0, there is nothing to train on"
    largest = max((_groups(data, kind) for kind in data.drawn), default=0)
    if model.momentum.enabled and model.momentum.queue < largest:
        yield f"model.momentum.queue: {model.momentum.queue} holds less than one batch of {largest}"
    for needy, switch in (("entities", "localisation"), ("mrc", "relations")):
        if needy in data.trained and not getattr(model, switch):
            by = f"data.ratio.{needy}" if needy in data.drawn else f"data.joint_weights.{needy}"
            yield f"model.{switch}: false, but {by} draws {needy} batches"


def _groups(data: DataConfig, kind: str) -> int:
    """Most pairs of text and view that a global batch brings to the teacher's queue."""
    if kind in KINDS and not KINDS[kind].aligned:
        return 0
    images, regions = getattr(data.batch, kind), data.regions_per_image
    if kind == "entities":  # counted in regions; each image may bring its caption
        return images + images // max(regions, 1)
    if kind == "joint":
        weights = data.joint_weights
        return images * ((weights.captions > 0) + (weights.vsg > 0) + (regions + 1) * (weights.entities > 0))
    return images


def _lengths(config: Config) -> Iterator[str]:
    """The position table must hold the longest text of every kind that is drawn."""
    places = config.model.text.max_positions
    longest = {"max_text_tokens": config.data.max_text_tokens}
    if "vsg" in config.data.trained:
        longest["max_vsg_tokens"] = config.data.max_vsg_tokens
    for name, tokens in longest.items():
        if places < tokens:
            yield f"model.text.max_positions: {places} is less than data.{name} {tokens}"
