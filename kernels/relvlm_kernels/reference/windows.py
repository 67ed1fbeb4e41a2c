"""Attention within Swin's windows, with a bias for every pair."""

from __future__ import annotations

import torch
from torch import Tensor

from relvlm_kernels.reference.arithmetic import probabilities, softmax_backward, wide


def window_attention(qkv: Tensor, bias: Tensor, mask: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
    """See `windows.window_attention`."""
    _, _, v, scores = _window_scores(qkv, bias, mask, scale)
    lse = scores.logsumexp(-1)
    out = probabilities(scores, lse) @ v
    return out.transpose(1, 2).to(qkv.dtype), lse.transpose(1, 2)


def window_attention_backward(
    grad: Tensor, qkv: Tensor, bias: Tensor, mask: Tensor | None, out: Tensor, lse: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    q, k, v, scores = _window_scores(qkv, bias, mask, scale)
    weights, dout = probabilities(scores, lse.transpose(1, 2)), wide(grad)[0].transpose(1, 2)
    dscores = softmax_backward(dout @ v.transpose(-1, -2), weights)
    dv = weights.transpose(-1, -2) @ dout
    dq, dk = dscores @ k * scale, dscores.transpose(-1, -2) @ q * scale
    dqkv = torch.stack([x.transpose(1, 2) for x in (dq, dk, dv)], dim=2)
    return dqkv.to(qkv.dtype), dscores.sum(0).to(bias.dtype)


def _window_scores(qkv: Tensor, bias: Tensor, mask: Tensor | None, scale: float) -> tuple[Tensor, ...]:
    """q, k, v (B, H, N, D) and scores (B, H, N, N)."""
    q, k, v = wide(qkv)[0].permute(2, 0, 3, 1, 4)
    scores = q @ k.transpose(-1, -2) * scale + bias
    if mask is not None:
        scores = (scores.unflatten(0, (-1, len(mask))) + mask[:, None]).flatten(0, 1)
    return q, k, v, scores
