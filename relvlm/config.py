"""Typed configuration: dataclasses hold the defaults, YAML what differs, `dotted.key=value` the last word.

An unknown key is an error that names the nearest known one. A run dumps what it resolved to.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from relvlm.config_tree import apply_override, build, read_tree
from relvlm.errors import UserError


@dataclass(frozen=True)
class VisionConfig:
    """Vision transformer; `width`, `layers`, `heads` of a Swin are its first stage's."""

    kind: Literal["vit", "swin"] = "vit"
    width: int = 768
    layers: int = 12
    heads: int = 12
    patch_size: int = 16
    mlp_ratio: float = 4.0
    depths: list[int] = field(default_factory=lambda: [2, 2, 18, 2])
    window: int = 7
    drop_path: float = 0.0
    dropout: float = 0.0
    init_std: float = 0.02
    position_std: float = 0.02


@dataclass(frozen=True)
class TextConfig:
    """Text-only layers of the BERT (the first six of bert-base)."""

    layers: int = 6
    heads: int = 12
    width: int = 768
    mlp_ratio: float = 4.0
    max_positions: int = 512
    dropout: float = 0.1
    norm: Literal["post", "pre"] = "post"
    init_std: float = 0.02


@dataclass(frozen=True)
class FusionConfig:
    """Cross-modal layers: self-attention, cross-attention, feed-forward; width, norm as in the text encoder."""

    layers: int = 6
    heads: int = 12


@dataclass(frozen=True)
class MomentumConfig:
    """ALBEF's momentum encoders, feature queues and distillation (official recipe)."""

    enabled: bool = False
    decay: float = 0.995
    queue: int = 65536
    alpha: float = 0.4
    ramp_steps: int = 0


@dataclass(frozen=True)
class ModelConfig:
    """Which of the four models: `localisation` adds BBOX and VMA, `relations` adds MRC (paper, table 1)."""

    image_size: int = 224
    embed_dim: int = 256
    temperature: float = 0.07
    vision: VisionConfig = field(default_factory=VisionConfig)
    text: TextConfig = field(default_factory=TextConfig)
    fusion: FusionConfig = field(default_factory=FusionConfig)
    momentum: MomentumConfig = field(default_factory=MomentumConfig)
    localisation: bool = True
    relations: bool = True
    itm_head: Literal["linear", "mlp"] = "linear"
    mrc_hidden: int = 3072


@dataclass(frozen=True)
class DatasetConfig:
    """A shard set; `block` consecutive records stay together when the set is shuffled."""

    path: str = ""
    weight: float = 1.0
    block: int = 1


@dataclass(frozen=True)
class KindCounts:
    """Global batch of each kind: images, but for `entities` regions."""

    captions: int = 0
    entities: int = 0
    mrc: int = 0
    vsg: int = 0


@dataclass(frozen=True)
class KindRatios:
    """How often a step is of each kind, relative to the others (paper, section 4)."""

    captions: float = 0.0
    entities: float = 0.0
    mrc: float = 0.0
    vsg: float = 0.0


@dataclass(frozen=True)
class DataConfig:
    vocab: str = ""
    relations: str = ""
    captions: list[DatasetConfig] = field(default_factory=list)
    entities: list[DatasetConfig] = field(default_factory=list)
    graphs: list[DatasetConfig] = field(default_factory=list)
    batch: KindCounts = field(default_factory=KindCounts)
    ratio: KindRatios = field(default_factory=KindRatios)
    max_text_tokens: int = 36
    max_vsg_tokens: int = 112
    max_words: int = 40
    sep: bool = True
    vsg_triplets: int = 8
    regions_per_image: int = 4
    mrc_relations: int = 2
    mrc_entities: int = 4
    mlm_probability: float = 0.25
    flip: float = 0.0
    crop_scale: float = 1.0
    randaugment: bool = False
    workers: int = 0
    max_faults: int = 100
    max_pixels: int = 178_956_970


@dataclass(frozen=True)
class OptimConfig:
    """AdamW, linear warm-up and a decay to `final_lr` (the paper leaves the decay unstated)."""

    lr: float = 1e-4
    betas: list[float] = field(default_factory=lambda: [0.9, 0.95])
    weight_decay: float = 0.02
    warmup_steps: int = 5000
    decay: Literal["cosine", "linear", "constant"] = "cosine"
    final_lr: float = 0.0
    clip_norm: float = 1.0


@dataclass(frozen=True)
class CheckpointConfig:
    every: int = 1000
    keep: int = 0
    resume: bool = True


@dataclass(frozen=True)
class Config:
    name: str = "run"
    out: str = "runs/run"
    seed: int = 0
    steps: int = 200_000
    log_every: int = 20
    threads: int = 0
    dtype: Literal["fp32", "bf16"] = "fp32"
    max_skipped_steps: int = 10
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)


def load_config(path: Path, overrides: list[str] | None = None) -> Config:
    """Config of a YAML file and `dotted.key=value` overrides; raises UserError naming file and field.

    A file may name another as its `base`, relative to itself, and then holds what differs from that one.
    """
    tree = read_tree(path)
    for override in overrides or []:
        apply_override(tree, override)
    return parse(tree, str(path))


def parse(tree: dict[str, Any], origin: str) -> Config:
    """Config of a tree of plain values; `origin` names it in errors."""
    config = build(Config, tree, origin, "")
    _check(config, origin)
    return config


def model_config(tree: dict[str, Any], origin: str = "model.json") -> ModelConfig:
    """The model section alone, as a checkpoint keeps it."""
    return build(ModelConfig, tree, origin, "model")


def to_tree(config: Config) -> dict[str, Any]:
    """The plain values that `parse` turns back into an equal Config."""
    return dataclasses.asdict(config)


def dump(config: Config, path: Path) -> None:
    """Write the resolved config as YAML."""
    path.write_text(yaml.safe_dump(to_tree(config), sort_keys=False))


def _check(config: Config, origin: str) -> None:
    """What types cannot say: numbers in range, sizes that divide, and data for every kind that is drawn."""
    for problem in (*_numbers(config), *_sizes(config.model), *_kinds(config), *_lengths(config)):
        raise UserError(f"{origin}: {problem}")


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
