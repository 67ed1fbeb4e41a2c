"""How much text and image a step of each kind holds, for counting what it costs."""

from __future__ import annotations

from dataclasses import dataclass, replace

from relvlm.config.schema import Config, DataConfig
from relvlm.kinds import BATCH_KINDS, KINDS, SECTION_KINDS, BatchKind

# Averages of web captions and of detection labels, special tokens included.
CAPTION_TOKENS, LABEL_TOKENS = 14, 4
TRIPLET_TOKENS = 6  # subject, relation, object and [SEP] of a verbalised triplet
SEEN_BY_A_REGION = 0.3  # share of the patches inside an average box


@dataclass(frozen=True)
class Workload:
    """A step's groups: `groups` an image, each a text of `tokens` (official codes pad it to `padded`).

    `masked`: MLM tokens of a group. `seen`: share of the patches that a group looks at. `relations`: MRC triplets
    an image. `boxes`: groups whose box is predicted from the full image. `aligned`: trained with ITC, ITM and MLM.
    `encodes`: its images are encoded for it, not yet for an earlier section of the same joint step.
    `beside_boxes`: sections of its joint step see boxes. `distinct`: share of the texts that no earlier one equals,
    which alone are encoded. Of a batch that is there (relvlm/plan/spent.py) all but `images` may be means.
    """

    kind: BatchKind
    images: int
    groups: float
    tokens: float
    padded: int
    masked: float = 0
    seen: float = 1.0
    relations: float = 0
    boxes: float = 0
    encodes: bool = True
    beside_boxes: bool = False
    distinct: float = 1.0

    @property
    def aligned(self) -> bool:
        return KINDS[self.kind].aligned

    @property
    def boxed(self) -> bool:
        """Whether groups of its step may see a box."""
        return self.beside_boxes or KINDS[self.kind].boxed


def workloads(config: Config) -> dict[BatchKind, list[Workload]]:
    """The sections of the global step of every kind that the recipe draws: one, but for joint steps."""
    drawn = [kind for kind in BATCH_KINDS if kind in config.data.drawn]
    return {kind: sections(config.data, kind) for kind in drawn}


def sections(data: DataConfig, kind: BatchKind) -> list[Workload]:
    """Average sections of a step of one kind."""
    if kind != "joint":
        return [workload(data, kind)]
    works = [workload(data, part) for part in SECTION_KINDS if getattr(data.joint_weights, part)]
    boxes = any(work.boxed for work in works)
    shared = [replace(work, images=data.batch.joint, beside_boxes=boxes) for work in works]
    return [replace(work, encodes=i == 0) for i, work in enumerate(shared)]


def workload(data: DataConfig, kind: BatchKind) -> Workload:
    """An average step of one kind, from the assumed text lengths above."""
    count: int = getattr(data.batch, kind)
    short, long = data.max_text_tokens, data.max_vsg_tokens
    if kind == "captions":
        return Workload(kind, count, 1, CAPTION_TOKENS, short, _masked(data, CAPTION_TOKENS))
    if kind == "vsg":
        tokens = min(long, 1 + TRIPLET_TOKENS * data.vsg_triplets)
        return Workload(kind, count, 1, tokens, long, _masked(data, tokens))
    if kind == "mrc":
        groups, relations = data.mrc_entities, data.mrc_relations
        return Workload(kind, count, groups, LABEL_TOKENS, short, 0, SEEN_BY_A_REGION, relations)
    groups = data.regions_per_image
    masked, images = _masked(data, LABEL_TOKENS), count // groups
    return Workload(kind, images, groups, LABEL_TOKENS, short, masked, SEEN_BY_A_REGION, 0, groups)


def _masked(data: DataConfig, tokens: int) -> int:
    return max(1, round(data.mlm_probability * (tokens - 1)))
