"""What can be configured: dataclasses hold the types and defaults, YAML what differs from them.

A field's annotation carries a word of explanation, the range of its values and what a resumed run may do with it
(relvlm/config/ranges.py); `relvlm config --schema` prints all three. None is what is absent.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from relvlm.config.cache import CacheConfig
from relvlm.config.ranges import (
    BELOW_ONE,
    BY_CONTENT,
    DEVIATION,
    FREE,
    NAME,
    NEVER,
    PART,
    PATH,
    SHARE,
    WEIGHT,
    Length,
    Range,
)
from relvlm.config.training import (
    LAST_STEP,
    CheckpointConfig,
    EvalConfig,
    InitConfig,
    LowResolutionConfig,
    OptimConfig,
    ResumeConfig,
)
from relvlm.config.trouble import DeadlinesConfig, SpikesConfig
from relvlm.config.vision import VisionConfig, ViTConfig
from relvlm.errors import UserError
from relvlm.kinds import BATCH_KINDS, SECTION_KINDS, BatchKind

TOKENS = Range(2, 1_000_000)  # [CLS] and a word
BATCH = Range(0, 10_000_000)
POOL = Range(1, 10_000_000)
TEMPERATURE_RANGE = (0.001, 0.5)  # ALBEF clamps to it at each forward


@dataclass(frozen=True)
class TextConfig:
    """Text-only layers of the BERT: the first six of bert-base."""

    layers: Annotated[int, "transformer layers", Range(1, 1000), NEVER] = 6
    heads: Annotated[int, "attention heads", Range(1, 1024), NEVER] = 12
    width: Annotated[int, "channels of a token, here and in the fusion encoder", Range(1, 65_536), NEVER] = 768
    mlp_ratio: Annotated[
        float, "hidden channels of the feed-forward part, over width", Range(0, 64, above=True), NEVER
    ] = 4.0
    max_positions: Annotated[int, "tokens of the longest text that has positions", Range(2, 1_000_000), NEVER] = 512
    dropout: Annotated[float, "of features and of attention weights", BELOW_ONE] = 0.1
    norm: Annotated[Literal["post", "pre"], "LayerNorm after each branch (BERT) or before it", NEVER] = "post"
    init_std: Annotated[float, "deviation of new weights", DEVIATION, NEVER] = 0.02


@dataclass(frozen=True)
class FusionConfig:
    """Cross-modal layers: self-attention, cross-attention, feed-forward; width, norm as in the text encoder."""

    layers: Annotated[int, "transformer layers", Range(1, 1000), NEVER] = 6
    heads: Annotated[int, "attention heads", Range(1, 1024), NEVER] = 12
    region_mask: Annotated[
        Literal["cross_attention", "late_vision"],
        "where a region's box masks the image: in cross-attention alone (X-VLM with Swin), or already in the last "
        "blocks of the vision transformer (X-VLM with ViT)",
    ] = "cross_attention"


@dataclass(frozen=True)
class MomentumConfig:
    """ALBEF's momentum encoders, feature queues and distillation (official recipe)."""

    enabled: Annotated[bool, "train with a momentum teacher", NEVER] = False
    decay: Annotated[float, "share of the teacher's weights that an update keeps", SHARE] = 0.995
    queue: Annotated[int, "features that ITC's queues hold", Range(1, 1_000_000_000), NEVER] = 65536
    alpha: Annotated[float, "weight of the teacher's soft targets", SHARE] = 0.4
    ramp_steps: Annotated[int, "steps over which alpha rises from 0", Range(0, LAST_STEP)] = 0


@dataclass(frozen=True)
class ModelConfig:
    """Which of the four models (paper, table 1), and its sizes."""

    image_size: Annotated[int, "pixels of an image's side", Range(1, 16_384), NEVER] = 224
    embed_dim: Annotated[int, "features that ITC compares", Range(1, 65_536), NEVER] = 256
    temperature: Annotated[float, "of ITC, at the start of training", Range(0, 100, above=True), NEVER] = 0.07
    vision: VisionConfig = field(default_factory=ViTConfig)
    text: TextConfig = field(default_factory=TextConfig)
    fusion: FusionConfig = field(default_factory=FusionConfig)
    momentum: MomentumConfig = field(default_factory=MomentumConfig)
    localisation: Annotated[bool, "adds BBOX and VMA", NEVER] = True
    relations: Annotated[bool, "adds MRC", NEVER] = True
    itm_head: Annotated[Literal["linear", "mlp"], "ALBEF's or X-VLM's", NEVER] = "linear"
    negatives: Annotated[
        Literal["masked", "official"],
        "ITC and ITM leave out pairs that also match, or take every other pair for a negative (the official codes)",
    ] = "masked"
    itm_floor: Annotated[float, "added to the probabilities of hard negatives (X-VLM: 1e-5)", SHARE] = 0.0
    itc_gradient: Annotated[
        Literal["all_ranks", "own_rank"], "of ITC to the features of all ranks, or of the own one (X-VLM)"
    ] = "all_ranks"
    mrc_hidden: Annotated[int, "hidden channels of the MRC head", Range(1, 65_536), NEVER] = 3072
    recompute: Annotated[
        bool, "layers' activations anew in the backward pass: less memory, a third more FLOPs", FREE
    ] = False
    compile: Annotated[bool, "layers by torch.compile, which takes a minute or so at the start", FREE] = False


@dataclass(frozen=True)
class DatasetConfig:
    """A shard set."""

    path: Annotated[str, "folder of the shard set, or its address (s3://, https://, pipe:, ...)", PATH, BY_CONTENT]
    weight: Annotated[float, "how often it is drawn, relative to the others of its kind", WEIGHT] = 1.0
    block: Annotated[int, "consecutive records that stay together when the set is shuffled", Range(1, 1_000_000)] = 1


@dataclass(frozen=True)
class KindCounts:
    """Global batch of each kind."""

    captions: Annotated[int, "images of a batch", BATCH] = 0
    entities: Annotated[int, "regions of a batch", BATCH] = 0
    mrc: Annotated[int, "images of a batch", BATCH] = 0
    vsg: Annotated[int, "images of a batch", BATCH] = 0
    joint: Annotated[int, "images of a batch", BATCH] = 0


@dataclass(frozen=True)
class NegativePools:
    """Images of a global batch among which ITM draws hard negatives; by default the official codes' batch of a GPU.

    A batch is cut into as few pools of nearly equal size as may be; each lies on one rank and in one chunk.
    """

    captions: Annotated[int, "images of a pool at most (ALBEF: 64)", POOL] = 64
    entities: Annotated[int, "images of a pool at most (X-VLM: 48, for 128 regions)", POOL] = 48
    vsg: Annotated[int, "images of a pool at most (as captions)", POOL] = 64
    joint: Annotated[int, "images of a pool at most (as entities)", POOL] = 48


@dataclass(frozen=True)
class KindRatios:
    """How often a step is of each kind, relative to the others (paper, section 4)."""

    captions: Annotated[float, "share of steps", WEIGHT] = 0.0
    entities: Annotated[float, "share of steps", WEIGHT] = 0.0
    mrc: Annotated[float, "share of steps", WEIGHT] = 0.0
    vsg: Annotated[float, "share of steps", WEIGHT] = 0.0
    joint: Annotated[float, "share of steps; not in the paper, whose steps are of one kind each", WEIGHT] = 0.0


@dataclass(frozen=True)
class JointWeights:
    """Weights of the kinds' losses in a joint step, which encodes each photo once for all of them."""

    captions: Annotated[float, "weight in a joint step; 0 leaves the kind out", WEIGHT] = 1.0
    entities: Annotated[float, "weight in a joint step; 0 leaves the kind out", WEIGHT] = 1.0
    mrc: Annotated[float, "weight in a joint step; 0 leaves the kind out", WEIGHT] = 1.0
    vsg: Annotated[float, "weight in a joint step; 0 leaves the kind out", WEIGHT] = 1.0


READINESS = Range(0, 1_000_000, above=True)  # at 0, a record could be of no use that its index says is of use


@dataclass(frozen=True)
class RelationWeights:
    """How readily relations are drawn for MRC and VSG by where they come from (`provenance` in the shards)."""

    human: Annotated[float, "readiness of a person's, and of those that do not say", READINESS] = 1.0
    boxes: Annotated[float, "readiness of those derived from boxes", READINESS] = 1.0
    parser: Annotated[float, "readiness of those parsed out of captions", READINESS] = 1.0
    model: Annotated[float, "readiness of those that a model made", READINESS] = 1.0


@dataclass(frozen=True)
class DataConfig:
    """Shard sets, how batches are drawn from them, and how texts and images become tokens and pixels."""

    vocab: Annotated[str | None, "WordPiece vocab.txt, one token a line", PATH, BY_CONTENT, NEVER] = None
    relations: Annotated[str | None, "the predicates that MRC classifies, one a line", PATH, BY_CONTENT, NEVER] = None
    captions: list[DatasetConfig] = field(default_factory=list)
    entities: list[DatasetConfig] = field(default_factory=list)
    graphs: list[DatasetConfig] = field(default_factory=list)
    joint: list[DatasetConfig] = field(default_factory=list)  # each sample has what each weighted kind needs
    joint_weights: JointWeights = field(default_factory=JointWeights)
    batch: KindCounts = field(default_factory=KindCounts)
    negative_pool: NegativePools = field(default_factory=NegativePools)
    ratio: KindRatios = field(default_factory=KindRatios)
    relation_weights: RelationWeights = field(default_factory=RelationWeights)
    max_text_tokens: Annotated[int, "tokens of the longest caption or label", TOKENS] = 36
    max_vsg_tokens: Annotated[int, "tokens of the longest VSG text", TOKENS] = 112
    max_words: Annotated[int, "words of a caption; further ones are cut", Range(1, 1_000_000)] = 40
    sep: Annotated[bool, "texts end with [SEP]"] = True
    vsg_triplets: Annotated[int, "triplets of a VSG text at most", Range(1, 1000)] = 8
    vsg_sorted: Annotated[bool, "triplets of a VSG text from left to right, then top down"] = True
    regions_per_image: Annotated[int, "regions of an image in an entities batch", Range(1, 1000)] = 4
    mrc_relations: Annotated[int, "triplets of an image in an MRC batch", Range(1, 1000)] = 2
    mrc_entities: Annotated[int, "entities of an image in an MRC batch", Range(1, 1000)] = 4
    masking: Annotated[
        Literal["whole_word", "albef", "xvlm"], "which tokens MLM masks (relvlm/data/batches/masking.py)"
    ] = "whole_word"
    mlm_probability: Annotated[float, "share of tokens that MLM masks", PART] = 0.25
    max_masks: Annotated[int, "masks of a text at most; 0 is no limit", Range(0, 1_000_000)] = 0
    skipgram_probability: Annotated[float, "of `masking: xvlm`: how often several tokens in a row", SHARE] = 0.2
    skipgram_size: Annotated[int, "of `masking: xvlm`: tokens in a row at most", Range(1, 1000)] = 3
    flip: Annotated[float, "probability of an image flipped, with its left and right", SHARE] = 0.0
    crop_scale: Annotated[float, "smallest share of an image that a random crop keeps; 1 is no crop", PART] = 1.0
    randaugment: Annotated[bool, "colours changed at random"] = False
    randaugment_geometry: Annotated[bool, "captions' images also sheared, shifted, rotated (ALBEF, X-VLM)"] = False
    workers: Annotated[int, "loader processes of a rank; 0 is the rank itself", Range(0, 1024), FREE] = 0
    max_fault_rate: Annotated[
        float, "share of the records read, over all ranks, that may be faulty; more end the run", SHARE, FREE
    ] = 0.01
    cache: CacheConfig = field(default_factory=CacheConfig)
    max_pixels: Annotated[int, "pixels of an image above which it counts as corrupt", Range(1, 178_956_970)] = (
        178_956_970
    )

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
class Config:
    """A run."""

    name: Annotated[str, "in reports", NAME, FREE] = "run"
    out: Annotated[str, "folder of the run", PATH, FREE] = "runs/run"
    seed: Annotated[int, "of weights, samples and dropout", Range(0, 2**31 - 1)] = 0
    steps: Annotated[int, "updates of the weights", Range(1, LAST_STEP)] = 200_000
    log_every: Annotated[int, "steps between lines of the log", Range(1, LAST_STEP), FREE] = 20
    loggers: Annotated[
        list[str], "where rows go beside metrics.csv and TensorBoard: wandb, trackio", Length(0, 2, NAME), FREE
    ] = field(default_factory=list)
    device_tflops: Annotated[
        float,
        "10^12 FLOP/s of a rank's device, for mfu; 0: a GPU's by its name, a CPU's measured",
        Range(0, 1_000_000),
        FREE,
    ] = 0.0
    threads: Annotated[int, "CPU threads of a rank; 0 leaves them to torch", Range(0, 4096), FREE] = 0
    accumulate: Annotated[
        int, "chunks that a step goes through one after another, for the memory of one", Range(1, 1_000_000)
    ] = 1
    dtype: Annotated[Literal["fp32", "bf16"], "of weights and activations"] = "fp32"
    max_skipped_steps: Annotated[
        int, "updates in a row that may be skipped for values that are not finite", Range(0, LAST_STEP), FREE
    ] = 10
    max_rollbacks: Annotated[
        int, "how often a run goes back to its last good checkpoint and past the data after it", Range(0, 1000), FREE
    ] = 3
    model: ModelConfig = field(default_factory=ModelConfig)
    init: InitConfig = field(default_factory=InitConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    low_resolution: LowResolutionConfig = field(default_factory=LowResolutionConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    resume: ResumeConfig = field(default_factory=ResumeConfig)
    deadlines: DeadlinesConfig = field(default_factory=DeadlinesConfig)
    spikes: SpikesConfig = field(default_factory=SpikesConfig)
