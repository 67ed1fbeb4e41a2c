"""The feed-forward part of a transformer layer."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from relvlm_kernels import gelu_linear


class FeedForward(nn.Sequential):
    """Linear, GELU (erf), Linear, of (..., D); keeps the first product for the backward, not what GELU makes of it."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        first, _, second = self
        assert isinstance(first, nn.Linear) and isinstance(second, nn.Linear)
        hidden_TF = F.linear(x, first.weight).flatten(0, -2)
        return gelu_linear(hidden_TF, first.bias, second.weight, second.bias).view(x.shape)
