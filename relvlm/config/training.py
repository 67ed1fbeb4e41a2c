"""How a model is trained, and what a run starts from and leaves. Fields as in relvlm/config/schema.py."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from relvlm.config.ranges import BELOW_ONE, FREE, NAME, NEVER, PATH, Length, Range

RANDOM = "random"  # in `init`: no pretrained weights, on purpose
LAST_STEP = 9_999_999  # checkpoints are in the order of their names, which have seven digits
POSITIVE = Range(0, above=True)  # without an end: which rate is too large for a model is not known beforehand


@dataclass(frozen=True)
class OptimConfig:
    """AdamW, linear warm-up from `warmup_lr` and a decay to `final_lr` (the paper leaves the decay unstated)."""

    lr: Annotated[float, "learning rate after the warm-up", POSITIVE] = 1e-4
    betas: Annotated[list[float], "AdamW's two decays", Length(2, 2, BELOW_ONE)] = field(
        default_factory=lambda: [0.9, 0.95]
    )
    weight_decay: Annotated[float, "AdamW's", Range(0, 100)] = 0.02
    warmup_steps: Annotated[int, "steps of linear warm-up", Range(0, LAST_STEP)] = 5000
    decay: Annotated[Literal["cosine", "linear", "constant"], "of the learning rate"] = "cosine"
    final_lr: Annotated[float, "learning rate at the end of the decay", Range(0)] = 0.0
    clip_norm: Annotated[float, "largest norm of the gradient; 0 is no limit", Range(0)] = 1.0
    warmup_lr: Annotated[float, "learning rate that the warm-up starts from", Range(0)] = 0.0
    new_lr_factor: Annotated[
        float,
        "how much faster what has no pretrained weights learns: heads, projections, cross-attention",
        Range(0, 1_000_000, above=True),
        NEVER,
    ] = 1.0
    decay_rule: Annotated[
        Literal["matrices", "albef", "xvlm"],
        "what weight decay applies to: matrices, or what the official codes choose by name",
        NEVER,
    ] = "matrices"


@dataclass(frozen=True)
class LowResolutionConfig:
    """A first phase on smaller images, position embeddings resized to them: not exact."""

    steps: Annotated[int, "not exact above 0: the first steps see smaller images", Range(0, LAST_STEP)] = 0
    image_size: Annotated[int, "pixels of their side", Range(0, 16_384)] = 0


@dataclass(frozen=True)
class CheckpointConfig:
    """When a run saves what it resumes from."""

    every: Annotated[int, "steps between checkpoints", Range(1, LAST_STEP), FREE] = 1000
    keep: Annotated[int, "newest checkpoints that are kept; 0 is all", Range(0, LAST_STEP), FREE] = 0
    keep_every: Annotated[
        int,
        "checkpoints of each multiple of so many steps are kept beside `keep`; 0 is none",
        Range(0, LAST_STEP),
        FREE,
    ] = 0
    keep_best: Annotated[
        str | None, "figure, e.g. `VSR dev`, whose best checkpoint stays beside `keep` (needs eval.every)", NAME, FREE
    ] = None
    max_failed: Annotated[int, "saves in a row that may fail before the run ends", Range(0, LAST_STEP), FREE] = 3
    resume: Annotated[bool, "go on from the newest checkpoint in `out`; false refuses where there is one", FREE] = True


@dataclass(frozen=True)
class EvalConfig:
    """Zero-shot evaluation of a run's checkpoints while it trains (after it: `relvlm eval --all-checkpoints`)."""

    every: Annotated[
        int,
        "steps between evaluations, each of a checkpoint that is saved for it; 0 is none",
        Range(0, LAST_STEP),
        FREE,
    ] = 0
    suite: Annotated[str | None, "folder of benchmarks, as of `relvlm eval --suite`", PATH, FREE] = None
    tasks: Annotated[
        list[str], "folders of the suite that are scored; none: all of them", Length(0, 100, NAME), FREE
    ] = field(default_factory=list)
    limit: Annotated[int, "first examples of each file that are scored; 0 is all", Range(0, 1_000_000_000), FREE] = 0


@dataclass(frozen=True)
class InitConfig:
    """What training starts from: backbones, or a checkpoint. `init: random` is short for both backbones at random."""

    vision: Annotated[str | None, "local Hugging Face folder or file, or `random`", PATH, NEVER] = None
    text: Annotated[str | None, "local Hugging Face folder or file, or `random`", PATH, NEVER] = None
    checkpoint: Annotated[str | None, "a checkpoint of ours, e.g. a converted one, in place of both", PATH, NEVER] = (
        None
    )

    @classmethod
    def of_word(cls, word: str) -> dict[str, str]:
        """The section that a single word stands for."""
        return {"vision": word, "text": word} if word == RANDOM else {}


@dataclass(frozen=True)
class ResumeConfig:
    """What a run may go on with that its checkpoint was not trained with."""

    accept: Annotated[
        list[str],
        "dotted keys (or sections) that may differ from the checkpoint's config, and then take effect",
        Length(0, 1000, NAME),
        FREE,
    ] = field(default_factory=list)
