"""What types cannot say of a config: numbers in range, sizes that divide, and data for every kind that is drawn."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from relvlm.config.schema import Config, DataConfig, ModelConfig


def problems(config: Config) -> Iterator[str]:
    """One line for each thing wrong, beginning with the field."""
    yield from (
        *_numbers(config),
        *_sizes(config.model),
        *_not_exact(config),
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


def _sizes(model: ModelConfig) -> Iterator[str]:
    for name, width, heads in [
        ("model.vision", model.vision.width, model.vision.heads),
        ("model.text", model.text.width, model.text.heads),
        ("model.fusion", model.text.width, model.fusion.heads),
    ]:
        if width % heads:
            yield f"{name}.heads: {heads} does not divide the width {width}"
    patch = model.vision.patch_size
    if model.image_size % patch:
        yield f"model.image_size: {model.image_size} is no multiple of patch_size {patch}"
    if model.fusion.region_mask == "late_vision":
        if model.vision.kind == "swin":
            yield "model.fusion.region_mask: late_vision needs a ViT, a Swin has windows"
        if not 0 < model.vision.late_blocks <= model.vision.layers:
            blocks, layers = model.vision.late_blocks, model.vision.layers
            yield f"model.vision.late_blocks: {blocks}: must be within the {layers} layers"


def _not_exact(config: Config) -> Iterator[str]:
    """Fewer patches, by dropping or by smaller images; a Swin needs the grid that its windows divide."""
    model, low = config.model, config.low_resolution
    keep, patch, swin = model.vision.patch_keep, model.vision.patch_size, model.vision.kind == "swin"
    if not 0 < keep <= 1:
        yield f"model.vision.patch_keep: {keep}: must be above 0 and at most 1"
    if keep < 1 and swin:
        yield "model.vision.patch_keep: needs a ViT, a Swin's windows are of all patches (set it to 1.0)"
    if not 0 <= low.steps < config.steps:
        yield f"low_resolution.steps: {low.steps}: must be within the {config.steps} steps and leave some at full size"
    if low.steps and swin:
        yield "low_resolution.steps: needs a ViT, a Swin is built for one image size (set it to 0)"
    elif low.steps and (low.image_size % patch or not 0 < low.image_size < model.image_size):
        yield (
            f"low_resolution.image_size: {low.image_size}: must be a multiple of patch_size {patch} "
            f"below model.image_size {model.image_size}"
        )


def _kinds(config: Config) -> Iterator[str]:
    model, data = config.model, config.data
    if not data.drawn:
        yield "data.ratio: every kind is 0, there is nothing to train on"
    for kind in data.drawn:
        section = "graphs" if kind in ("mrc", "vsg") else kind
        if not getattr(data, section):
            yield f"data.{section}: empty, but data.ratio.{kind} draws from it (add a path)"
        if getattr(data.batch, kind) <= 0:
            yield f"data.batch.{kind}: must be positive, data.ratio.{kind} draws it"
    for kind, weight in dataclasses.asdict(data.joint_weights).items():
        if not 0 <= weight < float("inf"):
            yield f"data.joint_weights.{kind}: {weight}: must not be negative"
    if data.ratio.joint > 0 and not data.trained:
        yield "data.joint_weights: every kind is 0, there is nothing to train on"
    largest = max((_groups(data, kind) for kind in data.drawn), default=0)
    if model.momentum.enabled and model.momentum.queue < largest:
        yield f"model.momentum.queue: {model.momentum.queue} holds less than one batch of {largest}"
    for kind, switch in (("entities", "localisation"), ("mrc", "relations")):
        if kind in data.trained and not getattr(model, switch):
            by = f"data.ratio.{kind}" if kind in data.drawn else f"data.joint_weights.{kind}"
            yield f"model.{switch}: false, but {by} draws {kind} batches"


def _groups(data: DataConfig, kind: str) -> int:
    """Most pairs of text and view that a global batch brings to the teacher's queue."""
    if kind == "mrc":
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
