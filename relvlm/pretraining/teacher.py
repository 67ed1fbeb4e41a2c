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
from relvlm.encoders.fusion import FusionEncoder
from relvlm.encoders.text import TextEncoder
from relvlm.encoders.vision import VisionEncoder
from relvlm.losses.mlm import MLMHead

COPIED = ("vision", "text", "fusion", "image_projection", "text_projection", "mlm_head")


class Keys(NamedTuple):
    """Momentum features of the batch, then of the queue, (G + Q, E).

    Of both ways, (G, G + Q): soft targets, and which columns are false negatives.
    """

    images: Tensor
    texts: Tensor
    soft_i2t: Tensor
    soft_t2i: Tensor
    wrong_i2t: Tensor
    wrong_t2i: Tensor


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
    def keys(self, image_GE: Tensor, text_GE: Tensor, temperature: Tensor, false_negative_GG: Tensor) -> Keys:
        """Columns and soft targets of the contrastive loss, from momentum features of this batch.

        `false_negative_GG[i, j]`: text i also describes view j; such pairs get no target (the diagonal does).
        """
        images = torch.cat([image_GE, self.image_queue])
        texts = torch.cat([text_GE, self.text_queue])
        own = torch.eye(
            len(image_GE), len(images), device=images.device
        )  # fp32, as ALBEF's, in fp64 runs too
        wrong = F.pad(false_negative_GG, (0, self.config.queue)) & ~own.bool()
        wrong_t2i, wrong_i2t = wrong, F.pad(false_negative_GG.T, (0, self.config.queue)) & ~own.bool()
        soft_i2t, soft_t2i = (
            self.alpha * (rows @ columns.T / temperature).masked_fill(ignored, float("-inf")).softmax(-1)
            + (1 - self.alpha) * own
            for rows, columns, ignored in ((image_GE, texts, wrong_i2t), (text_GE, images, wrong_t2i))
        )
        return Keys(images, texts, soft_i2t, soft_t2i, wrong_i2t, wrong_t2i)

    @torch.no_grad()
    def enqueue(self, images_AE: Tensor, texts_AE: Tensor) -> None:
        """Put all ranks' momentum features in place of the oldest ones; pairs that are not finite stay out."""
        slots = (self.pointer + torch.arange(len(images_AE), device=images_AE.device)) % self.config.queue
        finite = (images_AE.isfinite() & texts_AE.isfinite()).all(-1, keepdim=True)
        self.image_queue[slots] = torch.where(finite, images_AE, self.image_queue[slots])
        self.text_queue[slots] = torch.where(finite, texts_AE, self.text_queue[slots])
        self.pointer.add_(len(images_AE)).remainder_(self.config.queue)
