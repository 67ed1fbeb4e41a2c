"""Each op in its fewest lines: what every backend must equal.

Arguments are those of the ops of the same names, and gradients are autograd's. Slow: for tests, and for whoever asks
what an op computes.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from relvlm_kernels.dropout import keep_features, keep_scale
from relvlm_kernels.regions import Regions


def region_attention(
    q: Tensor, k: Tensor, v: Tensor, regions: Regions, scale: float | None = None, dropout: float = 0.0,
    seed: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Group by group: its box's keys, and the mean token, are gathered for real."""
    out, keep = torch.zeros_like(q), _keep(q, k.shape[1] + 1, dropout, seed)
    for g, (first, end) in enumerate(pairwise(regions.offsets.tolist())):
        patches, seen = _tokens(regions, g, k.shape[1])
        k_seen, v_seen = (
            torch.cat([x, x[patches].mean(0, keepdim=True)])[seen] for x in (k[regions.image[g]], v[regions.image[g]])
        )
        out[first:end] = _attend(q[first:end], k_seen, v_seen, scale, keep[:, first:end, seen])
    return out


def varlen_attention(
    q: Tensor, k: Tensor, v: Tensor, cu_q: Tensor, cu_k: Tensor, scale: float | None = None, dropout: float = 0.0,
    seed: Tensor | None = None,
) -> Tensor:  # fmt: skip
    out, keep = torch.zeros_like(q), _keep(q, len(k), dropout, seed)
    for (a, b), (c, d) in zip(pairwise(cu_q.tolist()), pairwise(cu_k.tolist()), strict=True):
        out[a:b] = _attend(q[a:b], k[c:d], v[c:d], scale, keep[:, a:b, : d - c])
    return out


def window_attention(qkv: Tensor, bias: Tensor, mask: Tensor | None = None, scale: float | None = None) -> Tensor:
    scale = qkv.shape[-1] ** -0.5 if scale is None else scale
    scores = torch.einsum("bqhd,bkhd->bhqk", qkv[:, :, 0], qkv[:, :, 1]) * scale + bias
    if mask is not None:
        scores = scores + mask.repeat(len(qkv) // len(mask), 1, 1)[:, None]
    return torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), qkv[:, :, 2])


def box_mean(x: Tensor, box: Tensor, image: Tensor, grid: tuple[int, int]) -> Tensor:
    patches = x[:, x.shape[1] - grid[0] * grid[1] :].unflatten(1, grid)
    places = zip(image.tolist(), box.tolist(), strict=True)
    means = [patches[i, y0:y1, x0:x1].mean((0, 1)) for i, (x0, y0, x1, y1) in places]
    return torch.stack(means) if means else x.new_zeros(0, x.shape[2])


def mrc_pool(h: Tensor, subject_rows: Tensor, object_rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return torch.nn.functional.linear(torch.cat([h[subject_rows], h[object_rows]], 1), weight, bias).relu()


def add_norm(
    x: Tensor, residual: Tensor, weight: Tensor, shift: Tensor, eps: float = 1e-5, dropout: float = 0.0,
    seed: Tensor | None = None,
) -> Tensor:  # fmt: skip
    if dropout and seed is not None:
        x = x * keep_features(seed, dropout, *x.shape).to(x.dtype)
    return torch.nn.functional.layer_norm(residual + x, weight.shape, weight, shift, eps)


def gelu_linear(x: Tensor, bias: Tensor, weight: Tensor, out_bias: Tensor) -> Tensor:
    return torch.nn.functional.linear(torch.nn.functional.gelu(x + bias), weight, out_bias)


def _tokens(regions: Regions, group: int, tokens: int) -> tuple[Tensor, Tensor]:
    """Of an image's tokens: the patches of the group's box; all that it sees, the mean token after the last."""
    inside = regions.pick(torch.tensor([group]), regions.offsets).patch_mask()[0]
    prefix = tokens - len(inside)
    seen = [regions.prefix[group].expand(prefix), inside, regions.mean[group].view(1)]
    return prefix + inside.nonzero()[:, 0], torch.cat(seen).nonzero()[:, 0]


def _attend(q: Tensor, k: Tensor, v: Tensor, scale: float | None, keep_HQK: Tensor) -> Tensor:
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    weights = torch.einsum("qhd,khd->hqk", q, k).mul(scale).softmax(-1)
    return torch.einsum("hqk,khd->qhd", weights * keep_HQK, v)


def _keep(q: Tensor, keys: int, dropout: float, seed: Tensor | None) -> Tensor:
    """(H, T, keys): what dropout multiplies each weight with."""
    if not dropout or seed is None:
        return q.new_ones(()).expand(q.shape[1], len(q), keys)
    rows = torch.arange(len(q), device=q.device)
    return keep_scale(seed, dropout, rows[None], q.shape[1], keys)[0].to(q.dtype)
