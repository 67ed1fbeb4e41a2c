"""Box prediction from (label, full image): L1 and generalised IoU (X-VLM, section 3.3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from relvlm.losses.precision import at_least_fp32


class BoxHead(nn.Module):
    """[CLS] (n, D) -> (cx, cy, w, h) in (0, 1)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width, 2 * width), nn.LayerNorm(2 * width), nn.GELU(), nn.Linear(2 * width, 4)
        )

    def forward(self, cls_ND: Tensor) -> Tensor:
        return self.layers(cls_ND).sigmoid()


def bbox_loss(predicted_N4: Tensor, target_N4: Tensor) -> Tensor:
    """(L1 + 1 - GIoU) summed over boxes (cx, cy, w, h), / number of boxes; 0 (with gradient) without boxes."""
    l1, giou = bbox_losses(predicted_N4, target_N4)
    return l1 + giou


def bbox_losses(predicted_N4: Tensor, target_N4: Tensor) -> tuple[Tensor, Tensor]:
    """The two parts of `bbox_loss`: L1, and 1 - GIoU."""
    predicted = at_least_fp32(predicted_N4)
    target = target_N4.to(predicted.dtype)
    l1 = (predicted - target).abs().sum()
    giou = generalised_iou(corners(predicted), corners(target))
    boxes = max(len(target), 1)
    return l1 / boxes, (1 - giou).sum() / boxes


def generalised_iou(a_N4: Tensor, b_N4: Tensor) -> Tensor:
    """GIoU (n,) of corner boxes; a pair of empty boxes gives 0 rather than NaN."""
    overlap, union = iou(a_N4, b_N4)
    hull = _area(torch.minimum(a_N4[:, :2], b_N4[:, :2]), torch.maximum(a_N4[:, 2:], b_N4[:, 2:]))
    return overlap - (hull - union) / hull.clamp(min=torch.finfo(hull.dtype).eps)


def iou(a_N4: Tensor, b_N4: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and union (n,) of corner boxes."""
    shared = _area(torch.maximum(a_N4[:, :2], b_N4[:, :2]), torch.minimum(a_N4[:, 2:], b_N4[:, 2:]))
    union = _area(a_N4[:, :2], a_N4[:, 2:]) + _area(b_N4[:, :2], b_N4[:, 2:]) - shared
    return shared / union.clamp(min=torch.finfo(union.dtype).eps), union


def _area(low_N2: Tensor, high_N2: Tensor) -> Tensor:
    return (high_N2 - low_N2).clamp(min=0).prod(-1)


def corners(box_N4: Tensor) -> Tensor:
    """(cx, cy, w, h) as (x0, y0, x1, y1)."""
    centre, size = box_N4[:, :2], box_N4[:, 2:]
    return torch.cat([centre - size / 2, centre + size / 2], dim=-1)
