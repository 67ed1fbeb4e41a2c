"""What several of the ops compute with: softmax and its derivative, the dtype of sums."""

from __future__ import annotations

import torch
from torch import Tensor


def probabilities(scores: Tensor, lse: Tensor) -> Tensor:
    """exp(scores - lse); zeros, not NaN, where there is no key."""
    return (scores - lse.clamp(min=torch.finfo(lse.dtype).min)[..., None]).exp()


def softmax_backward(grad: Tensor, weights: Tensor) -> Tensor:
    return weights * (grad - (grad * weights).sum(-1, keepdim=True))


def wide(*tensors: Tensor) -> tuple[Tensor, ...]:
    """In the dtype that is computed in."""
    return tuple(x if x.dtype == torch.float64 else x.float() for x in tensors)
