"""What can be configured: dataclasses hold the types and defaults, YAML what differs from them.

A field's annotation carries a word of explanation, which `relvlm config --schema` prints. None is what is absent.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from relvlm.config.vision import VisionConfig, ViTConfig
from relvlm.errors import UserError
from relvlm.kinds import BATCH_KINDS, SECTION_KINDS, BatchKind

RANDOM = "random"  # in `init`: no pretrained weights, on purpose


@dataclass(frozen=True)
class TextConfig:
    """Text-only layers of the BERT: the first six of bert-base."""

    layers: Annotated[int, "transformer layers"] = 6
    heads: Annotated[int, "attention heads"] = 12
    width: Annotated[int, "channels of a token, here and in the fusion encoder"] = 768
    mlp_ratio: Annotated[float, "hidden channels of the feed-forward part, over width"] = 4.0
    max_positions: Annotated[int, "tokens of the longest text that has positions"] = 512
    dropout: Annotated[float, "of features and of attention weights"] = 0.1
    norm: Annotated[Literal["post", "pre"], "LayerNorm after each branch (BERT) or before it"] = "post"
    init_std: Annotated[float, "deviation of new weights"] = 0.02


@dataclass(frozen=True)
class FusionConfig:
    """Cross-modal layers: self-attention, cross-attention, feed-forward; width, norm as in the text encoder."""

    layers: Annotated[int, "transformer layers"] = 6
    heads: Annotated[int, "attention heads"] = 12
    region_mask: Annotated[
        Literal["cross_attention", "late_vision"],
        "where a region's box masks the image: in cross-attention alone (X-VLM with Swin), or already in the last "
        "blocks of the vision transformer (X-VLM with ViT)",
    ] = "cross_attention"


@dataclass(frozen=True)
class MomentumConfig:
    """ALBEF's momentum encoders, feature queues and distillation (official recipe)."""

    enabled: Annotated[bool, "train with a momentum teacher"] = False
    decay: Annotated[float, "share of the teacher's weights that an update keeps"] = 0.995
    queue: Annotated[int, "features that ITC's queues hold"] = 65536
    alpha: Annotated[float, "weight of the teacher's soft targets"] = 0.4
    ramp_steps: Annotated[int, "steps over which alpha rises from 0"] = 0


@dataclass(frozen=True)
class ModelConfig:
    """Which of the four models (paper, table 1), and its sizes."""

    image_size: Annotated[int, "pixels of an image's side"] = 224
    embed_dim: Annotated[int, "features that ITC compares"] = 256
    temperature: Annotated[float, "of ITC, at the start of training"] = 0.07
    vision: VisionConfig = field(default_factory=ViTConfig)
    text: TextConfig = field(default_factory=TextConfig)
    fusion: FusionConfig = field(default_factory=FusionConfig)
    momentum: MomentumConfig = field(default_factory=MomentumConfig)
    localisation: Annotated[bool, "adds BBOX and VMA"] = True
    relations: Annotated[bool, "adds MRC"] = True
    itm_head: Annotated[Literal["linear", "mlp"], "ALBEF's or X-VLM's"] = "linear"
    negatives: Annotated[
        Literal["masked", "official"],
        "ITC and ITM leave out pairs that also match, or take every other pair for a negative (the official codes)",
    ] = "masked"
    itm_floor: Annotated[float, "added to the probabilities of hard negatives (X-VLM: 1e-5)"] = 0.0
    itc_gradient: Annotated[
        Literal["all_ranks", "own_rank"], "of ITC to the features of all ranks, or of the own one (X-VLM)"
    ] = "all_ranks"
    mrc_hidden: Annotated[int, "hidden channels of the MRC head"] = 3072
    recompute: Annotated[bool, "layers' activations anew in the backward pass: less memory, a third more FLOPs"] = False
    compile: Annotated[bool, "layers by torch.compile, which takes a minute or so at the start"] = False


@dataclass(frozen=True)
class DatasetConfig:
    """A shard set."""

    path: Annotated[str, "folder of the shard set"]
    weight: Annotated[float, "how often it is drawn, relative to the others of its kind"] = 1.0
    block: Annotated[int, "consecutive records that stay together when the set is shuffled"] = 1


@dataclass(frozen=True)
class KindCounts:
    """Global batch of each kind."""

    captions: Annotated[int, "images of a batch"] = 0
    entities: Annotated[int, "regions of a batch"] = 0
    mrc: Annotated[int, "images of a batch"] = 0
    vsg: Annotated[int, "images of a batch"] = 0
    joint: Annotated[int, "images of a batch"] = 0


@dataclass(frozen=True)
class KindRatios:
    """How often a step is of each kind, relative to the others (paper, section 4)."""

    captions: Annotated[float, "share of steps"] = 0.0
    entities: Annotated[float, "share of steps"] = 0.0
    mrc: Annotated[float, "share of steps"] = 0.0
    vsg: Annotated[float, "share of steps"] = 0.0
    joint: Annotated[float, "share of steps; not in the paper, whose steps are of one kind each"] = 0.0


@dataclass(frozen=True)
class JointWeights:
    """Weights of the kinds' losses in a joint step, which encodes each photo once for all of them."""

    captions: Annotated[float, "weight in a joint step; 0 leaves the kind out"] = 1.0
    entities: Annotated[float, "weight in a joint step; 0 leaves the kind out"] = 1.0
    mrc: Annotated[float, "weight in a joint step; 0 leaves the kind out"] = 1.0
    vsg: Annotated[float, "weight in a joint step; 0 leaves the kind out"] = 1.0


@dataclass(frozen=True)
class DataConfig:
    """Shard sets, how batches are drawn from them, and how texts and images become tokens and pixels."""

    vocab: Annotated[str | None, "WordPiece vocab.txt, one token a line"] = None
    relations: Annotated[str | None, "the predicates that MRC classifies, one a line"] = None
    captions: list[DatasetConfig] = field(default_factory=list)
    entities: list[DatasetConfig] = field(default_factory=list)
    graphs: list[DatasetConfig] = field(default_factory=list)
    joint: list[DatasetConfig] = field(default_factory=list)  # each sample has what each weighted kind needs
    joint_weights: JointWeights = field(default_factory=JointWeights)
    batch: KindCounts = field(default_factory=KindCounts)
    ratio: KindRatios = field(default_factory=KindRatios)
    max_text_tokens: Annotated[int, "tokens of the longest caption or label"] = 36
    max_vsg_tokens: Annotated[int, "tokens of the longest VSG text"] = 112
    max_words: Annotated[int, "words of a caption; further ones are cut"] = 40
    sep: Annotated[bool, "texts end with [SEP]"] = True
    vsg_triplets: Annotated[int, "triplets of a VSG text at most"] = 8
    regions_per_image: Annotated[int, "regions of an image in an entities batch"] = 4
    mrc_relations: Annotated[int, "triplets of an image in an MRC batch"] = 2
    mrc_entities: Annotated[int, "entities of an image in an MRC batch"] = 4
    masking: Annotated[
        Literal["whole_word", "albef", "xvlm"], "which tokens MLM masks (relvlm/data/batches/masking.py)"
    ] = "whole_word"
    mlm_probability: Annotated[float, "share of tokens that MLM masks"] = 0.25
    max_masks: Annotated[int, "masks of a text at most; 0 is no limit"] = 0
    skipgram_probability: Annotated[float, "of `masking: xvlm`: how often several tokens in a row"] = 0.2
    skipgram_size: Annotated[int, "of `masking: xvlm`: tokens in a row at most"] = 3
    flip: Annotated[float, "probability of an image flipped, with its left and right"] = 0.0
    crop_scale: Annotated[float, "smallest share of an image that a random crop keeps; 1 is no crop"] = 1.0
    randaugment: Annotated[bool, "colours changed at random"] = False
    randaugment_geometry: Annotated[bool, "captions' images also sheared, shifted, rotated (ALBEF, X-VLM)"] = False
    workers: Annotated[int, "loader processes of a rank; 0 is the rank itself"] = 0
    max_faults: Annotated[int, "corrupt samples that end the run when exceeded"] = 100
    max_pixels: Annotated[int, "pixels of an image above which it counts as corrupt"] = 178_956_970

    @property
    def drawn(self) -> list[BatchKind]:
        """The kinds of batch whose ratio is positive."""
        return [kind for kind in BATCH_KINDS if getattr(self.ratio, kind) > 0]

    @property
    def trained(self) -> set[BatchKind]:
        """The kinds that are drawn by themselves or as a part of joint batches."""
        joined = [kind for kind in SECTION_KINDS if self.ratio.joint > 0 and getattr(self.joint_weights, kind)]
        return {*self.drawn, *joined} - {"joint"}

    @property
    def vocab_file(self) -> Path:
        """UserError where the config names none."""
        if self.vocab is None:
            raise UserError(
                "data.vocab: missing (a WordPiece vocab.txt: RelWorld writes one, bert-base-uncased has one)"
            )
        return Path(self.vocab)

    @property
    def relations_file(self) -> Path:
        """UserError where the config names none."""
        if self.relations is None:
            raise UserError("data.relations: missing (a file of one predicate a line; mrc batches need it)")
        return Path(self.relations)


@dataclass(frozen=True)
class OptimConfig:
    """AdamW, linear warm-up from `warmup_lr` and a decay to `final_lr` (the paper leaves the decay unstated)."""

    lr: Annotated[float, "learning rate after the warm-up"] = 1e-4
    betas: Annotated[list[float], "AdamW's two decays"] = field(default_factory=lambda: [0.9, 0.95])
    weight_decay: Annotated[float, "AdamW's"] = 0.02
    warmup_steps: Annotated[int, "steps of linear warm-up"] = 5000
    decay: Annotated[Literal["cosine", "linear", "constant"], "of the learning rate"] = "cosine"
    final_lr: Annotated[float, "learning rate at the end of the decay"] = 0.0
    clip_norm: Annotated[float, "largest norm of the gradient; 0 is no limit"] = 1.0
    warmup_lr: Annotated[float, "learning rate that the warm-up starts from"] = 0.0
    new_lr_factor: Annotated[
        float, "how much faster what has no pretrained weights learns: heads, projections, cross-attention"
    ] = 1.0
    decay_rule: Annotated[
        Literal["matrices", "albef", "xvlm"],
        "what weight decay applies to: matrices, or what the official codes choose by name",
    ] = "matrices"


@dataclass(frozen=True)
class LowResolutionConfig:
    """A first phase on smaller images, position embeddings resized to them: not exact."""

    steps: Annotated[int, "not exact above 0: the first steps see smaller images"] = 0
    image_size: Annotated[int, "pixels of their side"] = 0


@dataclass(frozen=True)
class CheckpointConfig:
    """When a run saves what it resumes from."""

    every: Annotated[int, "steps between checkpoints"] = 1000
    keep: Annotated[int, "newest checkpoints that are kept; 0 is all"] = 0
    resume: Annotated[bool, "go on from the newest checkpoint in `out`; false refuses where there is one"] = True


@dataclass(frozen=True)
class InitConfig:
    """What training starts from: backbones, or a checkpoint. `init: random` is short for both backbones at random."""

    vision: Annotated[str | None, "local Hugging Face folder or file, or `random`"] = None
    text: Annotated[str | None, "local Hugging Face folder or file, or `random`"] = None
    checkpoint: Annotated[str | None, "a checkpoint of ours, e.g. a converted one, in place of both"] = None

    @classmethod
    def of_word(cls, word: str) -> dict[str, str]:
        """The section that a single word stands for."""
        return {"vision": word, "text": word} if word == RANDOM else {}


@dataclass(frozen=True)
class Config:
    """A run."""

    name: Annotated[str, "in reports"] = "run"
    out: Annotated[str, "folder of the run"] = "runs/run"
    seed: Annotated[int, "of weights, samples and dropout"] = 0
    steps: Annotated[int, "updates of the weights"] = 200_000
    log_every: Annotated[int, "steps between lines of the log"] = 20
    threads: Annotated[int, "CPU threads of a rank; 0 leaves them to torch"] = 0
    accumulate: Annotated[int, "chunks that a step goes through one after another, for the memory of one"] = 1
    dtype: Annotated[Literal["fp32", "bf16"], "of weights and activations"] = "fp32"
    max_skipped_steps: Annotated[int, "updates in a row that may be skipped for values that are not finite"] = 10
    model: ModelConfig = field(default_factory=ModelConfig)
    init: InitConfig = field(default_factory=InitConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    low_resolution: LowResolutionConfig = field(default_factory=LowResolutionConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
