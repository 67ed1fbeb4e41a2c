"""Masked language modelling on the fused tokens."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from relvlm.losses.precision import at_least_fp32

LAYER_NORM_EPS = 1e-12  # BERT's


class MLMHead(nn.Module):
    """BERT's prediction head, its decoder tied to the word embeddings: rows (M, D) -> logits (M, V)."""

    def __init__(self, word_embedding: nn.Embedding) -> None:
        super().__init__()
        vocab_size, width = word_embedding.weight.shape
        self.transform = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.decoder = nn.Linear(width, vocab_size)
        self.decoder.weight = word_embedding.weight

    def forward(self, rows_MD: Tensor) -> Tensor:
        return self.decoder(self.norm(F.gelu(self.transform(rows_MD))))


def mlm_loss(
    logits_MV: Tensor, label_M: Tensor, teacher_MV: Tensor | None = None, alpha: float = 0.0
) -> Tensor:
    """Mean cross-entropy in fp32 or more; 0 (with gradient) where no token is masked.

    With the teacher's logits, (1 - alpha) of it and alpha of the cross-entropy to the teacher (ALBEF, section 3.3).
    """
    logits_MV = at_least_fp32(logits_MV)
    total = F.cross_entropy(logits_MV, label_M, reduction="sum")
    if teacher_MV is not None:
        soft = at_least_fp32(teacher_MV).softmax(-1)
        total = (1 - alpha) * total + alpha * F.cross_entropy(logits_MV, soft, reduction="sum")
    return total / max(len(label_M), 1)
