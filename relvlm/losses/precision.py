"""The precision that losses are computed in."""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_fp32(x: Tensor) -> Tensor:
    """fp32, or fp64 where the input is."""
    return x if x.dtype == torch.float64 else x.float()
