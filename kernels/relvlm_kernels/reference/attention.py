"""Attention over boxes and over sequences, in padded slots: products of whole batches, and no key copied per group."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from relvlm_kernels.dropout import keep_scale
from relvlm_kernels.reference.arithmetic import probabilities, softmax_backward, wide
from relvlm_kernels.regions import Regions
from relvlm_kernels.slots import Slots, by_image, by_sequence, owner, present

Gradients = tuple[Tensor, ...]  # of q, k and v


class _Scores(NamedTuple):
    """Scores (B, H, Q, S + 1) of padded queries, the mean token last, -inf where nothing is to be seen.

    The mean token's key is the mean of the keys, hence its score the mean of the scores; its value likewise spreads
    its weight over the patches of the box, with `share` 1/n each.
    """

    slots: Slots
    scores: Tensor
    share: Tensor

    def fold(self, weights: Tensor) -> Tensor:
        """Weights of the S tokens, the mean token's given to its patches."""
        return weights[..., :-1] + weights[..., -1:] * self.share

    def unfold(self, dfolded: Tensor) -> Tensor:
        return torch.cat([dfolded, (dfolded * self.share).sum(-1, keepdim=True)], dim=-1)


def region_attention(
    q: Tensor, k: Tensor, v: Tensor, regions: Regions, scale: float, dropout: float, seed: Tensor | None
) -> tuple[Tensor, Tensor]:
    """See `ops.region_attention`."""
    dtype, (q, k, v) = q.dtype, wide(q, k, v)
    s = _region_scores(q, k, regions, scale)
    lse = s.scores.logsumexp(-1)
    dropped = _dropped(probabilities(s.scores, lse), s.slots, dropout, seed)
    return s.slots.pack(s.fold(dropped) @ v.transpose(1, 2)).to(dtype), s.slots.pack(lse, -torch.inf)


def region_attention_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, regions: Regions, scale: float,
    dropout: float, seed: Tensor | None, to: Gradients | None = None,
) -> Gradients:  # fmt: skip
    like, (grad, q, k, v) = (q, k, v), wide(grad, q, k, v)
    s = _region_scores(q, k, regions, scale)
    weights = probabilities(s.scores, s.slots.pad(lse).transpose(1, 2))
    grad_BHQD = s.slots.heads(grad)
    dv = s.fold(_dropped(weights, s.slots, dropout, seed)).transpose(-1, -2) @ grad_BHQD
    dweights = _dropped(s.unfold(grad_BHQD @ v.permute(0, 2, 3, 1)), s.slots, dropout, seed)
    dscores = s.fold(softmax_backward(dweights, weights)) * scale
    dq = _kept(regions, s.slots.pack(dscores @ k.transpose(1, 2)), to, len(k))
    dk = dscores.transpose(-1, -2) @ s.slots.heads(q)
    return _written((dq, dk.transpose(1, 2), dv.transpose(1, 2)), like, to)


def _kept(regions: Regions, dq: Tensor, to: Gradients | None, images: int) -> Tensor:
    """`dq` with what `to` has of it in the rows of groups whose images are not here."""
    elsewhere = present(regions.image, images).logical_not()
    if to is None or not elsewhere.any():
        return dq
    group, owned = owner(regions.offsets, len(dq))
    rows = (owned & elsewhere[group])[:, None, None]
    return torch.where(rows, to[0].to(dq.dtype), dq)


def _region_scores(q: Tensor, k: Tensor, regions: Regions, scale: float) -> _Scores:
    """Queries are padded per image, so that K is never copied per group."""
    if not len(regions.image):  # one group without queries
        none = torch.zeros(2, dtype=torch.int32, device=q.device)
        regions = Regions.whole(none, none[:1], regions.grid)
    group_T, owned_T = owner(regions.offsets, q.shape[0])
    slots = by_image(regions.image[group_T].long(), owned_T, k.shape[0])
    patches_GN = regions.patch_mask()
    prefix_GP = regions.prefix[:, None].expand(-1, k.shape[1] - patches_GN.shape[1])
    visible = slots.pad(torch.cat([prefix_GP, patches_GN], 1)[group_T])[:, None]
    inside = slots.pad(torch.cat([torch.zeros_like(prefix_GP), patches_GN], 1)[group_T])[:, None]
    with_mean = slots.pad(regions.mean[group_T])[:, None, :, None]

    scores = slots.heads(q) @ k.permute(0, 2, 3, 1) * scale
    share = inside.to(scores.dtype) / inside.sum(-1, keepdim=True).clamp(min=1)
    mean_score = (scores * share).sum(-1, keepdim=True)
    scores = torch.cat([_masked(scores, visible), _masked(mean_score, with_mean)], dim=-1)
    return _Scores(slots, scores, share)


def varlen_attention(
    q: Tensor, k: Tensor, v: Tensor, cu_q: Tensor, cu_k: Tensor, scale: float, dropout: float,
    seed: Tensor | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """See `ops.varlen_attention`."""
    dtype, (q, k, v) = q.dtype, wide(q, k, v)
    queries, keys, scores = _varlen_scores(q, k, cu_q, cu_k, scale)
    lse = scores.logsumexp(-1)
    dropped = _dropped(probabilities(scores, lse), queries, dropout, seed)
    return queries.pack(dropped @ keys.heads(v)).to(dtype), queries.pack(lse, -torch.inf)


def varlen_attention_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, cu_q: Tensor, cu_k: Tensor,
    scale: float, dropout: float, seed: Tensor | None, to: Gradients | None = None,
) -> Gradients:  # fmt: skip
    like, (grad, q, k, v) = (q, k, v), wide(grad, q, k, v)
    queries, keys, scores = _varlen_scores(q, k, cu_q, cu_k, scale)
    weights = probabilities(scores, queries.pad(lse).transpose(1, 2))
    grad_pad = queries.heads(grad)
    dv = _dropped(weights, queries, dropout, seed).transpose(-1, -2) @ grad_pad
    dweights = _dropped(grad_pad @ keys.heads(v).transpose(-1, -2), queries, dropout, seed)
    dscores = softmax_backward(dweights, weights) * scale
    dq, dk = dscores @ keys.heads(k), dscores.transpose(-1, -2) @ queries.heads(q)
    return _written((queries.pack(dq), keys.pack(dk), keys.pack(dv)), like, to)


def _written(found: Gradients, like: Gradients, to: Gradients | None) -> Gradients:
    """In the dtype of `like`, in new tensors or in those given."""
    for a, b in zip(found, to or (), strict=bool(to)):
        b.copy_(a)
    return to or tuple(a.to(b.dtype) for a, b in zip(found, like, strict=True))


def _varlen_scores(q: Tensor, k: Tensor, cu_q: Tensor, cu_k: Tensor, scale: float) -> tuple[Slots, Slots, Tensor]:
    """Slots of queries and keys, and scores (sequences, H, longest query, longest key)."""
    queries, keys = by_sequence(cu_q, q.shape[0]), by_sequence(cu_k, k.shape[0])
    exists = torch.arange(keys.shape[1], device=k.device) < (cu_k[1:] - cu_k[:-1])[:, None]
    scores = queries.heads(q) @ keys.heads(k).transpose(-1, -2) * scale
    return queries, keys, _masked(scores, exists[:, None, None])


def _dropped(x: Tensor, slots: Slots, dropout: float, seed: Tensor | None) -> Tensor:
    """Weights or their gradients (rows, H, queries, keys) under the keep-mask; as they are without dropout."""
    if not dropout or seed is None:
        return x
    return x * keep_scale(seed, dropout, slots.packed_rows(), x.shape[1], x.shape[3]).to(x.dtype)


def _masked(scores: Tensor, visible: Tensor) -> Tensor:
    return scores.masked_fill(~visible, -torch.inf)
