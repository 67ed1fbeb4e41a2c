"""ALBEF's momentum teacher: soft targets for ITC and MLM, and queues of past features.

The teacher is no part of the model's parameters (the optimizer and ZeRO never see it); the engine saves its state.
"""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from relvlm.config.schema import MomentumConfig
from relvlm.data.batches.batch import Batch
from relvlm.encoders.fusion import FusionEncoder
from relvlm.encoders.text import TextEncoder
from relvlm.encoders.vision import VisionEncoder
from relvlm.losses.mlm import MLMHead
from relvlm.pretraining.encode import Features, encode
from relvlm.pretraining.fused_pass import FusionQuery, fused_pass
from relvlm.pretraining.savings import Savings

COPIED = ("vision", "text", "fusion", "image_projection", "text_projection", "mlm_head")


class TeacherTargets(NamedTuple):
    """The teacher's features, and its fused rows of masked words (M, D), of a whole batch."""

    features: Features
    masked_MD: Tensor


class ContrastKeys(NamedTuple):
    """Momentum features of the batch, then of the queue, (G + Q, E).

    Of both ways, (G, G + Q): soft targets, and the pairs that must not serve as negatives.
    """

    images: Tensor
    texts: Tensor
    soft_i2t: Tensor
    soft_t2i: Tensor
    excluded_i2t: Tensor
    excluded_t2i: Tensor


class Teacher(nn.Module):
    """Exponential moving average of the student's encoders; `update` comes first in each step, `enqueue` last."""

    vision: VisionEncoder
    text: TextEncoder
    fusion: FusionEncoder
    image_projection: nn.Linear
    text_projection: nn.Linear
    mlm_head: MLMHead
    image_queue: Tensor
    text_queue: Tensor
    pointer: Tensor

    def __init__(self, student: nn.Module, config: MomentumConfig, embed_dim: int) -> None:
        super().__init__()
        self.config = config
        for name in COPIED:
            setattr(self, name, copy.deepcopy(getattr(student, name)))
        # the copied decoder must follow the copied embedding, as the student's does
        self.mlm_head.decoder.weight = self.text.embeddings.word.weight
        self.requires_grad_(False)
        for name in ("image_queue", "text_queue"):
            self.register_buffer(name, F.normalize(torch.randn(config.queue, embed_dim), dim=-1))
        self.register_buffer("pointer", torch.zeros(1, dtype=torch.long))
        self.seen = 0  # updates so far: a plain number, to be read without a device sync

    @torch.no_grad()
    def copy(self, student: nn.Module) -> None:
        """Start from the student's weights as they are now."""
        for name, average in self.named_parameters():
            average.copy_(student.get_parameter(name))

    def get_extra_state(self) -> dict[str, int]:
        return {"seen": self.seen}

    def set_extra_state(self, state: dict[str, int]) -> None:
        self.seen = state["seen"]

    @property
    def alpha(self) -> float:
        """Weight of the soft targets: `config.alpha`, ramped linearly over the first `ramp_steps` updates."""
        if not self.config.ramp_steps:
            return self.config.alpha
        return self.config.alpha * min(1.0, (self.seen - 1) / self.config.ramp_steps)

    @torch.no_grad()
    def update(self, student: nn.Module) -> None:
        """teacher = decay * teacher + (1 - decay) * student."""
        for name, average in self.named_parameters():  # the tied word embedding comes once
            average.lerp_(student.get_parameter(name).to(average.dtype), 1 - self.config.decay)
        self.seen += 1

    @torch.no_grad()
    def contrast_keys(self, own: Features, temperature: Tensor, excluded_GG: Tensor) -> ContrastKeys:
        """Columns and soft targets of the contrastive loss, from momentum features of this batch (ALBEF, section 3.3).

        `excluded_GG[i, j]`: text i also describes view j, or is of another pool; such pairs get no target (the diagonal
        does).
        """
        image_GE, text_GE = own
        images = torch.cat([image_GE, self.image_queue])
        texts = torch.cat([text_GE, self.text_queue])
        # one-hot in fp32, as ALBEF's, in fp64 runs too
        one_hot = torch.eye(len(image_GE), len(images), device=images.device)
        t2i, i2t = (
            F.pad(excluded, (0, self.config.queue)) & ~one_hot.bool() for excluded in (excluded_GG, excluded_GG.T)
        )
        soft_i2t, soft_t2i = (
            self.alpha * (rows @ columns.T / temperature).masked_fill(ignored, float("-inf")).softmax(-1)
            + (1 - self.alpha) * one_hot
            for rows, columns, ignored in ((image_GE, texts, i2t), (text_GE, images, t2i))
        )
        return ContrastKeys(images, texts, soft_i2t, soft_t2i, i2t, t2i)

    @torch.no_grad()
    def enqueue(self, images_AE: Tensor, texts_AE: Tensor) -> None:
        """Put all ranks' momentum features in place of the oldest ones; pairs that are not finite stay out."""
        slots = (self.pointer + torch.arange(len(images_AE), device=images_AE.device)) % self.config.queue
        finite = (images_AE.isfinite() & texts_AE.isfinite()).all(-1, keepdim=True)
        self.image_queue[slots] = torch.where(finite, images_AE, self.image_queue[slots])
        self.text_queue[slots] = torch.where(finite, texts_AE, self.text_queue[slots])
        self.pointer.add_(len(images_AE)).remainder_(self.config.queue)


@torch.no_grad()
def update_and_encode_teacher(
    teacher: Teacher | None, student: nn.Module, batches: list[Batch], region_mask: str, savings: Savings
) -> list[TeacherTargets | None]:
    """Move the teacher, if any, towards the student and let it encode a step's batches (ALBEF, section 3.3).

    Without a teacher, and for batches that are not aligned, it stays where it is: no targets.
    """
    if teacher is None or not batches[0].aligned:
        return [None] * len(batches)
    teacher.update(student)
    return [_targets(teacher, batch, region_mask, savings) for batch in batches]


def _targets(teacher: Teacher, batch: Batch, region_mask: str, savings: Savings) -> TeacherTargets:
    views, texts, features = encode(teacher, batch, region_mask, savings.unique_texts)
    assert features is not None
    own = torch.arange(batch.aligned, device=texts.tokens_TD.device)
    masked = FusionQuery(texts.masked, own, batch.mlm_row, len(batch.mlm_ids))
    (masked_MD,) = fused_pass(teacher.fusion, texts, views, [masked], savings)
    return TeacherTargets(features, masked_MD)
