"""The mathematics of the four ops and of their gradients in plain PyTorch: what every backend must equal.

`<op>_backward` takes the output's gradient first and returns those of the op's floating-point inputs.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from relvlm_kernels.regions import Regions, box_mask


class _Slots(NamedTuple):
    """Where packed row t goes in a padded layout of `shape`: `place[t]`, counted row by row."""

    place: Tensor
    shape: tuple[int, int]

    def pad(self, x: Tensor) -> Tensor:
        rows, columns = self.shape
        flat = x.new_zeros(rows * columns, *x.shape[1:])
        return flat.index_copy_(0, self.place, x).view(rows, columns, *x.shape[1:])

    def heads(self, x: Tensor) -> Tensor:
        """(T, H, D) -> (rows, H, columns, D)."""
        return self.pad(x).transpose(1, 2)

    def pack(self, x: Tensor) -> Tensor:
        """(rows, H, columns, D) -> (T, H, D)."""
        return x.transpose(1, 2).flatten(0, 1).index_select(0, self.place)


def region_attention(q: Tensor, k: Tensor, v: Tensor, regions: Regions, scale: float) -> Tensor:
    """See `ops.region_attention`."""
    slots, weights, share = _region_weights(q, k, regions, scale)
    folded = weights[..., :-1] + weights[..., -1:] * share
    return slots.pack(folded.to(v.dtype) @ v.transpose(1, 2))


def region_attention_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, regions: Regions, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    slots, weights, share = _region_weights(q, k, regions, scale)
    folded = (weights[..., :-1] + weights[..., -1:] * share).to(v.dtype)
    grad_BHQD = slots.heads(grad)
    dv = folded.transpose(-1, -2) @ grad_BHQD
    dfolded = (grad_BHQD @ v.permute(0, 2, 3, 1)).to(weights.dtype)
    dweights = torch.cat([dfolded, (dfolded * share).sum(-1, keepdim=True)], dim=-1)
    dscores = _softmax_backward(dweights, weights) * scale
    dscores = (dscores[..., :-1] + dscores[..., -1:] * share).to(q.dtype)
    dq = slots.pack(dscores @ k.transpose(1, 2))
    dk = dscores.transpose(-1, -2) @ slots.heads(q)
    return dq, dk.transpose(1, 2), dv.transpose(1, 2)


def _region_weights(q: Tensor, k: Tensor, regions: Regions, scale: float) -> tuple[_Slots, Tensor, Tensor]:
    """Attention weights (B, H, Q, S + 1), the mean token last, and its share 1/n on the box's patches.

    Queries are padded per image, so that K is never copied per group. The mean token's key is the mean of the
    keys, hence its score the mean of the scores; its value likewise spreads its weight over the patches.
    """
    group_T = _owner(regions.offsets, q.shape[0])
    slots = _by_image(regions.image[group_T].long(), k.shape[0])
    patches_GN = regions.patch_mask()
    prefix_GP = regions.prefix[:, None].expand(-1, k.shape[1] - patches_GN.shape[1])
    visible = slots.pad(torch.cat([prefix_GP, patches_GN], 1)[group_T])[:, None]
    inside = slots.pad(torch.cat([torch.zeros_like(prefix_GP), patches_GN], 1)[group_T])[:, None]
    with_mean = slots.pad(regions.mean[group_T])[:, None, :, None]

    scores = (slots.heads(q) @ k.permute(0, 2, 3, 1)).to(_accumulator(q)) * scale
    share = inside.to(scores.dtype) / inside.sum(-1, keepdim=True).clamp(min=1)
    mean_score = (scores * share).sum(-1, keepdim=True)
    scores = torch.cat([_masked(scores, visible), _masked(mean_score, with_mean)], dim=-1)
    return slots, scores.softmax(-1), share


def varlen_attention(q: Tensor, k: Tensor, v: Tensor, cu_q: Tensor, cu_k: Tensor, scale: float) -> Tensor:
    """See `ops.varlen_attention`."""
    queries, keys, weights = _varlen_weights(q, k, cu_q, cu_k, scale)
    return queries.pack(weights.to(v.dtype) @ keys.heads(v))


def varlen_attention_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, cu_q: Tensor, cu_k: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    queries, keys, weights = _varlen_weights(q, k, cu_q, cu_k, scale)
    grad_pad = queries.heads(grad)
    dv = weights.to(v.dtype).transpose(-1, -2) @ grad_pad
    dweights = (grad_pad @ keys.heads(v).transpose(-1, -2)).to(weights.dtype)
    dscores = (_softmax_backward(dweights, weights) * scale).to(q.dtype)
    dq, dk = dscores @ keys.heads(k), dscores.transpose(-1, -2) @ queries.heads(q)
    return queries.pack(dq), keys.pack(dk), keys.pack(dv)


def _varlen_weights(
    q: Tensor, k: Tensor, cu_q: Tensor, cu_k: Tensor, scale: float
) -> tuple[_Slots, _Slots, Tensor]:
    """Slots of queries and keys, and attention weights (sequences, H, longest query, longest key)."""
    queries, keys = _by_sequence(cu_q, q.shape[0]), _by_sequence(cu_k, k.shape[0])
    exists = torch.arange(keys.shape[1], device=k.device) < (cu_k[1:] - cu_k[:-1])[:, None]
    scores = (queries.heads(q) @ keys.heads(k).transpose(-1, -2)).to(_accumulator(q)) * scale
    return queries, keys, _masked(scores, exists[:, None, None]).softmax(-1)


def box_mean(x: Tensor, box: Tensor, image: Tensor, grid: tuple[int, int]) -> Tensor:
    """See `ops.box_mean`."""
    weights_GN = _box_weights(box, grid, x.dtype)
    patches_BND = x[:, x.shape[1] - weights_GN.shape[1] :]
    return torch.einsum("gn,gnd->gd", weights_GN, patches_BND[image.long()])


def box_mean_backward(grad: Tensor, x: Tensor, box: Tensor, image: Tensor, grid: tuple[int, int]) -> Tensor:
    weights_GN = _box_weights(box, grid, x.dtype)
    dx = torch.zeros_like(x)
    dx[:, x.shape[1] - weights_GN.shape[1] :].index_add_(
        0, image.long(), torch.einsum("gn,gd->gnd", weights_GN, grad)
    )
    return dx


def mrc_pool(h: Tensor, subject_rows: Tensor, object_rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """See `ops.mrc_pool`."""
    pair = torch.cat([h[subject_rows], h[object_rows]], dim=-1)
    return torch.relu(torch.nn.functional.linear(pair, weight, bias))


def mrc_pool_backward(
    grad: Tensor, h: Tensor, subject_rows: Tensor, object_rows: Tensor, weight: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    pair = torch.cat([h[subject_rows], h[object_rows]], dim=-1)
    active = torch.nn.functional.linear(pair, weight, bias) > 0
    grad = grad * active
    dsubject, dobject = (grad @ weight).chunk(2, dim=-1)
    dh = torch.zeros_like(h).index_add_(0, subject_rows, dsubject).index_add_(0, object_rows, dobject)
    return dh, grad.T @ pair, grad.sum(0)


def _owner(offsets: Tensor, rows: int) -> Tensor:
    """(rows,) int64: the group or sequence that owns each packed row."""
    index = torch.arange(rows, device=offsets.device)
    return torch.searchsorted(offsets[1:].long(), index, right=True)


def _by_sequence(cu: Tensor, rows: int) -> _Slots:
    sequence = _owner(cu, rows)
    longest = int((cu[1:] - cu[:-1]).max()) if len(cu) > 1 else 0
    column = torch.arange(rows, device=cu.device) - cu[sequence]
    return _Slots(sequence * longest + column, (len(cu) - 1, longest))


def _by_image(image_T: Tensor, images: int) -> _Slots:
    """Queries of one image side by side, in their packed order."""
    order = torch.argsort(image_T, stable=True)
    counts = torch.bincount(image_T, minlength=images)
    starts = counts.cumsum(0) - counts
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order), device=order.device) - starts[image_T[order]]
    longest = int(counts.max())
    return _Slots(image_T * longest + rank, (images, longest))


def _box_weights(box: Tensor, grid: tuple[int, int], dtype: torch.dtype) -> Tensor:
    inside = box_mask(box, grid).to(dtype)
    return inside / inside.sum(-1, keepdim=True)


def _softmax_backward(grad: Tensor, weights: Tensor) -> Tensor:
    return weights * (grad - (grad * weights).sum(-1, keepdim=True))


def _masked(scores: Tensor, visible: Tensor) -> Tensor:
    """The lowest finite value where not visible, so that a row of padding is no NaN."""
    return scores.masked_fill(~visible, torch.finfo(scores.dtype).min)


def _accumulator(x: Tensor) -> torch.dtype:
    return x.dtype if x.dtype == torch.float64 else torch.float32
