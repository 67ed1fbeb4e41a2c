"""What types cannot say of a config: numbers in range, sizes that divide, and data for every kind that is drawn."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from relvlm.config import Config, DataConfig, ModelConfig


def problems(config: Config) -> Iterator[str]:
    """One line for each thing wrong, beginning with the field."""
    yield from (*_numbers(config), *_sizes(config.model), *_kinds(config), *_lengths(config))


def _numbers(config: Config) -> Iterator[str]:
    positive = {
        "steps": config.steps,
        "log_every": config.log_every,
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


def _kinds(config: Config) -> Iterator[str]:
    model, data = config.model, config.data
    sources = {"captions": data.captions, "entities": data.entities, "mrc": data.graphs, "vsg": data.graphs}
    drawn = _drawn(data)
    if not drawn:
        yield "data.ratio: every kind is 0, there is nothing to train on"
    for kind in drawn:
        section = "graphs" if kind in ("mrc", "vsg") else kind
        if not sources[kind]:
            yield f"data.{section}: empty, but data.ratio.{kind} draws from it (add a path)"
        if getattr(data.batch, kind) <= 0:
            yield f"data.batch.{kind}: must be positive, data.ratio.{kind} draws it"
    largest = max((getattr(data.batch, kind) for kind in drawn), default=0)
    if model.momentum.enabled and model.momentum.queue < largest:
        yield f"model.momentum.queue: {model.momentum.queue} holds less than one batch of {largest}"
    if "entities" in drawn and not model.localisation:
        yield "model.localisation: false, but data.ratio.entities draws entity batches"
    if "mrc" in drawn and not model.relations:
        yield "model.relations: false, but data.ratio.mrc draws relation batches"


def _lengths(config: Config) -> Iterator[str]:
    """The position table must hold the longest text of every kind that is drawn."""
    places = config.model.text.max_positions
    longest = {"max_text_tokens": config.data.max_text_tokens}
    if "vsg" in _drawn(config.data):
        longest["max_vsg_tokens"] = config.data.max_vsg_tokens
    for name, tokens in longest.items():
        if places < tokens:
            yield f"model.text.max_positions: {places} is less than data.{name} {tokens}"


def _drawn(data: DataConfig) -> list[str]:
    """The kinds whose ratio is positive."""
    return [kind for kind, ratio in dataclasses.asdict(data.ratio).items() if ratio > 0]
