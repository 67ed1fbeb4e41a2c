"""Position tables of one image or window size made those of another, as the official codes do."""

from __future__ import annotations

import math
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor


def resize_positions(table_1SD: Tensor, side: int) -> Tensor:
    """ViT's (1, 1 + N, D) for `side` x `side` patches: bicubic; that of [CLS] stays."""
    old = math.isqrt(table_1SD.shape[1] - 1)
    if old == side:
        return table_1SD
    cls, patches = table_1SD[:, :1], table_1SD[:, 1:]
    square = patches.unflatten(1, (old, old)).permute(0, 3, 1, 2)
    square = F.interpolate(square.float(), (side, side), mode="bicubic", align_corners=False)
    return torch.cat([cls, square.to(table_1SD.dtype).permute(0, 2, 3, 1).flatten(1, 2)], dim=1)


@cache
def position_resizer(old: int, new: int, device: torch.device) -> Tensor:
    """(1 + new^2, 1 + old^2) fp32: `resize_positions` as a matrix, for a table that learns.

    The gradient of `interpolate` is not deterministic on a GPU, that of a product is.
    """
    return resize_positions(torch.eye(1 + old**2, device=device)[None], new)[0]


def resize_bias_table(table_TH: Tensor, window: int) -> Tensor:
    """Swin's (T, heads) of relative positions for a window of `window` squared.

    The old table's places are spread out in a geometric progression, denser at the centre, and a cubic spline goes
    through them (BEiT's way).
    """
    old, new = math.isqrt(len(table_TH)), 2 * window - 1
    if old == new:
        return table_TH
    places = _progression(old // 2, new // 2)
    wanted = torch.arange(new, dtype=torch.float64) - new // 2
    spline = cubic_spline(places, wanted)
    square_HYX = table_TH.T.double().unflatten(1, (old, old))
    resized = spline @ square_HYX @ spline.T
    return resized.flatten(1).T.to(table_TH.dtype).contiguous()


def _progression(count: int, reach: int) -> Tensor:
    """-x_count, ..., 0, ..., x_count with steps 1, q, q^2, ... such that x_count is `reach`; q in [1.01, 1.5]."""
    low, high = 1.01, 1.5
    while high - low > 1e-6:
        ratio = (low + high) / 2
        if (1 - ratio**count) / (1 - ratio) > reach:
            high = ratio
        else:
            low = ratio
    places = (ratio ** torch.arange(count, dtype=torch.float64)).cumsum(0)
    return torch.cat([-places.flip(0), torch.zeros(1, dtype=torch.float64), places])


def cubic_spline(knots_K: Tensor, points_P: Tensor) -> Tensor:
    """(P, K): values at the points of the not-a-knot cubic spline, linear in the values at the knots (fp64)."""
    count, h = len(knots_K), knots_K.diff()
    bend, slope = torch.zeros(2, count, count, dtype=torch.float64)  # bend @ second derivatives = slope @ values
    for i in range(1, count - 1):
        bend[i, i - 1 : i + 2] = torch.stack([h[i - 1], 2 * (h[i - 1] + h[i]), h[i]])
        slope[i, i - 1 : i + 2] = 6 * torch.stack([1 / h[i - 1], -1 / h[i - 1] - 1 / h[i], 1 / h[i]])
    bend[0, :3] = torch.stack([h[1], -h[0] - h[1], h[0]])  # the third derivative does not jump there
    bend[-1, -3:] = torch.stack([h[-1], -h[-2] - h[-1], h[-2]])
    second_KK = torch.linalg.solve(bend, slope)

    points_P = points_P.clamp(knots_K[0], knots_K[-1])
    left = torch.searchsorted(knots_K, points_P, right=True).clamp(1, count - 1) - 1
    step = h[left][:, None]
    a, b = (knots_K[left + 1] - points_P)[:, None], (points_P - knots_K[left])[:, None]
    value_KK = torch.eye(count, dtype=torch.float64)
    return (
        (a**3 * second_KK[left] + b**3 * second_KK[left + 1]) / (6 * step)
        + a * (value_KK[left] / step - second_KK[left] * step / 6)
        + b * (value_KK[left + 1] / step - second_KK[left + 1] * step / 6)
    )
