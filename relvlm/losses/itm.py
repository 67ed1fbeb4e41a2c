"""Image-text matching: hard negatives drawn from the contrastive similarities (ALBEF, section 3.2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

IGNORED = -100


class ITMHead(nn.Module):
    """[CLS] (n, D) -> logits (n, 2), index 1 = match. Linear as in ALBEF, or X-VLM's two layers."""

    def __init__(self, width: int, kind: str) -> None:
        super().__init__()
        mlp = [nn.Linear(width, 2 * width), nn.LayerNorm(2 * width), nn.GELU(), nn.Linear(2 * width, 2)]
        self.layers = nn.Sequential(*(mlp if kind == "mlp" else [nn.Linear(width, 2)]))

    def forward(self, cls_ND: Tensor) -> Tensor:
        return self.layers(cls_ND)


def hard_negatives(similarity_GG: Tensor, excluded_GG: Tensor) -> tuple[Tensor, Tensor]:
    """One column per row, drawn by softmax(similarity) among those not excluded, and whether there was any.

    Vectorised, without a host sync (torch.multinomial reads its input's range back). A row with nothing to draw
    from gets an arbitrary column and False.
    """
    scores = similarity_GG.detach().float().nan_to_num()
    gumbel = -torch.empty_like(scores).exponential_().log()  # the largest score + gumbel is a draw by softmax
    drawn = (scores + gumbel).masked_fill(excluded_GG, float("-inf")).argmax(-1)
    return drawn, ~excluded_GG.all(-1)


def itm_loss(logits_N2: Tensor, target_N: Tensor) -> Tensor:
    """Cross-entropy in fp32; target 1 = match, 0 = not, IGNORED = no such pair; 0 where all are ignored."""
    counted = (target_N != IGNORED).sum().clamp(min=1)
    return F.cross_entropy(logits_N2.float(), target_N, ignore_index=IGNORED, reduction="sum") / counted
