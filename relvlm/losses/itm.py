"""Image-text matching: hard negatives drawn from the contrastive similarities (ALBEF, section 3.2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from relvlm.losses.precision import at_least_fp32

IGNORED = -100


class ITMHead(nn.Module):
    """[CLS] (n, D) -> logits (n, 2), index 1 = match. Linear as in ALBEF, or X-VLM's two layers."""

    def __init__(self, width: int, kind: str) -> None:
        super().__init__()
        mlp = [nn.Linear(width, 2 * width), nn.LayerNorm(2 * width), nn.GELU(), nn.Linear(2 * width, 2)]
        self.layers = nn.Sequential(*(mlp if kind == "mlp" else [nn.Linear(width, 2)]))

    def forward(self, cls_ND: Tensor) -> Tensor:
        return self.layers(cls_ND)


def negative_weights(similarity_GG: Tensor, excluded_GG: Tensor, floor: float = 0.0) -> Tensor:
    """What hard negatives are drawn by, up to a factor: softmax over a row, plus `floor`; 0 where excluded."""
    weights = at_least_fp32(similarity_GG.detach()).nan_to_num().softmax(-1) + floor
    return weights.masked_fill(excluded_GG, 0.0)


def hard_negatives(similarity_GG: Tensor, excluded_GG: Tensor, floor: float = 0.0) -> tuple[Tensor, Tensor]:
    """One column per row, drawn by `negative_weights`, and whether there was any.

    Vectorised, without a host sync (torch.multinomial reads its input's range back). A row with nothing to draw
    from gets an arbitrary column and False.
    """
    # logarithms: a row whose weights underflow can be drawn from all the same
    scores = at_least_fp32(similarity_GG.detach()).nan_to_num()
    if floor:
        scores = (scores.softmax(-1) + floor).log()
    gumbel = -torch.empty_like(scores).exponential_().log()  # the largest score + gumbel is a draw by weight
    drawn = (scores + gumbel).masked_fill(excluded_GG, float("-inf")).argmax(-1)
    return drawn, ~excluded_GG.all(-1)


def itm_loss(logits_N2: Tensor, target_N: Tensor) -> Tensor:
    """Cross-entropy in fp32 or more; target 1 = match, 0 = not, IGNORED = no such pair; 0 where all are ignored."""
    counted = (target_N != IGNORED).sum().clamp(min=1)
    total = F.cross_entropy(at_least_fp32(logits_N2), target_N, ignore_index=IGNORED, reduction="sum")
    return total / counted
