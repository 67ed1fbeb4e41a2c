"""Masked language modelling on the fused tokens."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

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


def mlm_loss(logits_MV: Tensor, label_M: Tensor) -> Tensor:
    """Mean cross-entropy in fp32; 0 (with gradient) where no token is masked."""
    total = F.cross_entropy(logits_MV.float(), label_M, reduction="sum")
    return total / max(len(label_M), 1)
