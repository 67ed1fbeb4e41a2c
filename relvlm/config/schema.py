"""Typed configuration: dataclasses hold the defaults, YAML what differs, `dotted.key=value` the last word.

An unknown key is an error that names the nearest known one. A run dumps what it resolved to.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from relvlm.config.check import problems
from relvlm.config.tree import apply_override, build, read_tree
from relvlm.errors import UserError

RANDOM = "random"  # in `init`: no pretrained weights, on purpose


@dataclass(frozen=True)
class VisionConfig:
    """Vision transformer; `width`, `layers`, `heads` of a Swin are its first stage's.

    `patch_keep`, where below 1, is *not exact*: the share of a ViT's patches that training keeps of images that every
    text sees whole (captions, vsg), drawn anew each step, and apart for a momentum teacher (FLIP, Li et al., 2023).
    """

    kind: Literal["vit", "swin", "clip_vit"] = "vit"
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
    patch_keep: float = 1.0
    late_blocks: int = (
        4  # the last blocks of a ViT, in which regions are masked (fusion.region_mask: late_vision)
    )

    def kept_patches(self, patches: int) -> int:
        """How many of an image's `patches` training keeps."""
        return max(1, round(self.patch_keep * patches))


@dataclass(frozen=True)
class TextConfig:
    """Text-only layers of the BERT (the first six of bert-base); `dropout` of features and of attention weights."""

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
    """Cross-modal layers: self-attention, cross-attention, feed-forward; width, norm as in the text encoder.

    `region_mask`: where a region's box masks the image: in cross-attention alone (X-VLM with Swin), or already in
    the last blocks of the vision transformer (X-VLM with ViT).
    """

    layers: int = 6
    heads: int = 12
    region_mask: Literal["cross_attention", "late_vision"] = "cross_attention"


@dataclass(frozen=True)
class MomentumConfig:
    """ALBEF's momentum encoders, feature queues and distillation (official recipe)."""

    enabled: bool = False
    decay: float = 0.995
    queue: int = 65536
    alpha: float = 0.4
    ramp_steps: int = 0


@dataclass(frozen=True)
class SavingsConfig:
    """What makes the training step cheap at equal losses; benchmarks/train_step.py switches each off to see its worth.

    All objectives in one pass of the fusion encoder; K and V projected once per image, whatever looks at it; the last
    fusion layer on the rows that are read; equal texts of a batch encoded once; word scores in chunks, never kept.
    """

    one_pass: bool = True
    shared_keys: bool = True
    read_rows: bool = True
    unique_texts: bool = True
    chunked_words: bool = True


@dataclass(frozen=True)
class ModelConfig:
    """Which of the four models: `localisation` adds BBOX and VMA, `relations` adds MRC (paper, table 1).

    `negatives`: whether pairs that also match are left out of ITC and ITM, or every other pair is a negative (the
    official codes). `itm_floor` is added to the probabilities that hard negatives are drawn by (X-VLM: 1e-5).
    `itc_gradient`: of ITC over several ranks, to the features of all of them, or of the own rank (X-VLM).
    """

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
    negatives: Literal["masked", "official"] = "masked"
    itm_floor: float = 0.0
    itc_gradient: Literal["all_ranks", "own_rank"] = "all_ranks"
    mrc_hidden: int = 3072
    savings: SavingsConfig = field(default_factory=SavingsConfig)
    recompute: bool = (
        False  # transformer layers' activations in the backward pass: less memory, a third more FLOPs
    )
    compile: bool = False  # transformer layers by torch.compile, a minute or so at the start of a training


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
    joint: int = 0


@dataclass(frozen=True)
class KindRatios:
    """How often a step is of each kind, relative to the others (paper, section 4)."""

    captions: float = 0.0
    entities: float = 0.0
    mrc: float = 0.0
    vsg: float = 0.0
    joint: float = 0.0


@dataclass(frozen=True)
class JointWeights:
    """Weights of the kinds' losses in a joint step, which encodes each photo once for all of them; 0 leaves one out.

    A joint step is not in the paper, whose steps are of one kind each.
    """

    captions: float = 1.0
    entities: float = 1.0
    mrc: float = 1.0
    vsg: float = 1.0


@dataclass(frozen=True)
class DataConfig:
    vocab: str = ""
    relations: str = ""
    captions: list[DatasetConfig] = field(default_factory=list)
    entities: list[DatasetConfig] = field(default_factory=list)
    graphs: list[DatasetConfig] = field(default_factory=list)
    joint: list[DatasetConfig] = field(default_factory=list)  # each sample has what each weighted kind needs
    joint_weights: JointWeights = field(default_factory=JointWeights)
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
    masking: Literal["whole_word", "albef", "xvlm"] = "whole_word"  # see relvlm/data/batches/masking.py
    mlm_probability: float = 0.25
    max_masks: int = 0  # per text; 0 is no limit
    skipgram_probability: float = 0.2  # of `masking: xvlm`
    skipgram_size: int = 3
    flip: float = 0.0
    crop_scale: float = 1.0
    randaugment: bool = False
    randaugment_geometry: bool = False  # captions are also sheared, shifted and rotated (ALBEF, X-VLM)
    workers: int = 0
    max_faults: int = 100
    max_pixels: int = 178_956_970

    @property
    def drawn(self) -> list[str]:
        """The kinds of batch whose ratio is positive."""
        return [kind for kind, ratio in dataclasses.asdict(self.ratio).items() if ratio > 0]

    @property
    def trained(self) -> set[str]:
        """The kinds that are drawn by themselves or as a part of joint batches."""
        weights = dataclasses.asdict(self.joint_weights).items() if self.ratio.joint > 0 else ()
        return {*self.drawn, *(kind for kind, weight in weights if weight)} - {"joint"}


@dataclass(frozen=True)
class OptimConfig:
    """AdamW, linear warm-up from `warmup_lr` and a decay to `final_lr` (the paper leaves the decay unstated).

    `decay_rule`: what weight decay applies to: matrices, or what the official codes choose by name.
    `new_lr_factor`: how much faster what has no pretrained weights learns: heads, projections, cross-attention.
    """

    lr: float = 1e-4
    betas: list[float] = field(default_factory=lambda: [0.9, 0.95])
    weight_decay: float = 0.02
    warmup_steps: int = 5000
    decay: Literal["cosine", "linear", "constant"] = "cosine"
    final_lr: float = 0.0
    clip_norm: float = 1.0
    warmup_lr: float = 0.0
    new_lr_factor: float = 1.0
    decay_rule: Literal["matrices", "albef", "xvlm"] = "matrices"


@dataclass(frozen=True)
class LowResolutionConfig:
    """*Not exact*, and off at 0 steps: the first `steps` see smaller images, position embeddings resized to them."""

    steps: int = 0
    image_size: int = 0


@dataclass(frozen=True)
class CheckpointConfig:
    every: int = 1000
    keep: int = 0
    resume: bool = True


@dataclass(frozen=True)
class InitConfig:
    """What training starts from. `vision` and `text` name a local Hugging Face folder, or are `random`.

    `checkpoint` names a checkpoint of ours, e.g. a converted official one, in place of both. `init: random` is
    short for both at random; nothing said is an error.
    """

    vision: str = ""
    text: str = ""
    checkpoint: str = ""

    @classmethod
    def of_word(cls, word: str) -> dict[str, str]:
        """The section that a single word stands for."""
        return {"vision": word, "text": word} if word == RANDOM else {}


@dataclass(frozen=True)
class Config:
    """`accumulate`: the chunks that a step goes through one after another (relvlm/pretraining/chunks.py)."""

    name: str = "run"
    out: str = "runs/run"
    seed: int = 0
    steps: int = 200_000
    log_every: int = 20
    threads: int = 0
    accumulate: int = 1
    dtype: Literal["fp32", "bf16"] = "fp32"
    max_skipped_steps: int = 10
    model: ModelConfig = field(default_factory=ModelConfig)
    init: InitConfig = field(default_factory=InitConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    low_resolution: LowResolutionConfig = field(default_factory=LowResolutionConfig)
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
    for problem in problems(config):
        raise UserError(f"{origin}: {problem}")
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
