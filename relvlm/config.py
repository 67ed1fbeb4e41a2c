"""Typed configuration: dataclasses hold the defaults, YAML what differs, `dotted.key=value` the last word.

An unknown key is an error that names the nearest known one. A run dumps what it resolved to.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import types
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

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
    tree = _read_tree(path)
    for override in overrides or []:
        _apply_override(tree, override)
    return parse(tree, str(path))


def parse(tree: dict[str, Any], origin: str) -> Config:
    """Config of a tree of plain values; `origin` names it in errors."""
    config = _build(Config, tree, origin, "")
    _check(config, origin)
    return config


def model_config(tree: dict[str, Any], origin: str = "model.json") -> ModelConfig:
    """The model section alone, as a checkpoint keeps it."""
    return _build(ModelConfig, tree, origin, "model")


def to_tree(config: Config) -> dict[str, Any]:
    """The plain values that `parse` turns back into an equal Config."""
    return dataclasses.asdict(config)


def dump(config: Config, path: Path) -> None:
    """Write the resolved config as YAML."""
    path.write_text(yaml.safe_dump(to_tree(config), sort_keys=False))


def _read_tree(path: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    if path.resolve() in above:
        raise UserError(f"{path}: base: leads back to this file")
    if not path.is_file():
        raise UserError(f"{path}: no such config file (ready ones lie in configs/)")
    try:
        tree = yaml.safe_load(path.read_text()) or {}
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not YAML: {error}") from error
    if not isinstance(tree, dict):
        raise UserError(f"{path}: expected sections, found {tree!r}")
    base = tree.pop("base", "")
    if not isinstance(base, str):
        raise UserError(f"{path}: base: expected a file name, found {base!r}")
    return _merge(_read_tree(path.parent / base, (*above, path.resolve())), tree) if base else tree


def _merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    both = {
        k: _merge(below[k], v)
        for k, v in above.items()
        if isinstance(v, dict) and isinstance(below.get(k), dict)
    }
    return below | above | both


def _apply_override(tree: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator:
        raise UserError(f"{override}: an override reads dotted.key=value")
    node = tree
    *parents, last = key.split(".")
    for parent in parents:
        node = node.setdefault(parent, {})
        if not isinstance(node, dict):
            raise UserError(f"{override}: {parent} is a value, not a section")
    try:
        node[last] = yaml.safe_load(text) if text else ""
    except yaml.YAMLError as error:
        raise UserError(f"{override}: not a YAML value: {error}") from error


def _build(kind: Any, tree: Any, origin: str, where: str) -> Any:
    if not isinstance(tree, dict):
        raise UserError(f"{origin}: {where or 'top level'}: expected a section, found {tree!r}")
    hints = get_type_hints(kind)
    for key in tree:
        if key not in hints:
            near = difflib.get_close_matches(str(key), hints, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(hints)}"
            raise UserError(f"{origin}: {_join(where, key)}: unknown key ({hint})")
    return kind(**{k: _value(hints[k], v, origin, _join(where, k)) for k, v in tree.items()})


def _value(kind: Any, value: Any, origin: str, where: str) -> Any:
    if dataclasses.is_dataclass(kind):
        return _build(kind, value, origin, where)
    base = get_origin(kind)
    if base is list:
        if not isinstance(value, list):
            raise UserError(f"{origin}: {where}: expected a list, found {value!r}")
        (inner,) = get_args(kind)
        return [_value(inner, v, origin, f"{where}[{i}]") for i, v in enumerate(value)]
    if base is Literal:
        if value not in get_args(kind):
            raise UserError(f"{origin}: {where}: {value!r} is none of {', '.join(map(repr, get_args(kind)))}")
        return value
    if base in (Union, types.UnionType):
        raise TypeError(f"{where}: unions are not used in the config")
    return _scalar(kind, value, origin, where)


def _scalar(kind: type, value: Any, origin: str, where: str) -> Any:
    if kind is float and isinstance(value, str):  # YAML 1.1 reads 1e-4 as a string
        with contextlib.suppress(ValueError):
            value = float(value)
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        raise UserError(f"{origin}: {where}: expected {kind.__name__}, found {value!r}")
    return value


def _join(where: str, key: Any) -> str:
    return f"{where}.{key}" if where else str(key)


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
