"""Masked relation classification (paper, section 2.2)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from relvlm.losses.precision import at_least_fp32
from relvlm_kernels import mrc_pool


class MRCHead(nn.Module):
    """Two-layer ReLU MLP over [subject; object] (paper, appendix A: 5.7M parameters at base size)."""

    def __init__(self, width: int, hidden: int, relations: int) -> None:
        super().__init__()
        self.first = nn.Linear(2 * width, hidden)
        self.second = nn.Linear(hidden, relations)

    def forward(self, cls_ED: Tensor, subject_R: Tensor, object_R: Tensor) -> Tensor:
        """Relation logits (R, V) of R triplets; `subject_R`, `object_R` index the rows of `cls_ED`."""
        hidden_RF = mrc_pool(cls_ED, subject_R, object_R, self.first.weight, self.first.bias)
        return self.second(hidden_RF)


def mrc_loss(logits_RV: Tensor, relation_R: Tensor) -> Tensor:
    """Mean cross-entropy in fp32 or more; 0 (with gradient) where there is no triplet."""
    total = F.cross_entropy(at_least_fp32(logits_RV), relation_R, reduction="sum")
    return total / max(len(relation_R), 1)
