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


def hard_negatives(
    similarity_GG: Tensor, excluded_GG: Tensor, floor: float = 0.0, draws_G: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """One column per row, drawn by `negative_weights`, and whether there was any.

    `draws_G`: a uniform number in [0, 1) for each row, by default of torch's generator; the column is the first at
    which the weights so far exceed that share of their sum. Vectorised, without a host sync (torch.multinomial reads
    its input's range back). A row with nothing to draw from gets an arbitrary column and False.
    """
    if not floor:  # before the softmax: excluded columns leave no row without weights, however alluring they are
        similarity_GG = similarity_GG.masked_fill(excluded_GG, float("-inf"))
    so_far_GG = negative_weights(similarity_GG, excluded_GG, floor).double().cumsum(-1)
    if draws_G is None:
        draws_G = torch.rand(len(so_far_GG), device=so_far_GG.device)
    exceeds_GG = so_far_GG > draws_G[:, None] * so_far_GG[:, -1:]
    # 2 from the drawn column on, 0 where excluded: sums of a parallel scan may be rounded so that none exceeds
    places_GG = (exceeds_GG.int() + 1).masked_fill(excluded_GG, 0)
    return places_GG.argmax(-1), ~excluded_GG.all(-1)


def itm_loss(logits_N2: Tensor, target_N: Tensor) -> Tensor:
    """Cross-entropy in fp32 or more; target 1 = match, 0 = not, IGNORED = no such pair; 0 where all are ignored."""
    counted = (target_N != IGNORED).sum().clamp(min=1)
    total = F.cross_entropy(at_least_fp32(logits_N2), target_N, ignore_index=IGNORED, reduction="sum")
    return total / counted
