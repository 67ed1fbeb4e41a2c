"""The `reference` backend: the ops and their gradients in plain PyTorch, on any device (see `naive` for the ops).

An attention op returns its output and `lse` (T, H), the natural log-sum-exp of each query's scores, mean token
included (fp32, fp64 for fp64; -inf where there is no key, and the output is 0). `<op>_backward` takes the output's
gradient, the op's tensors, and what the forward returned; it gives the gradients of the op's floating-point inputs.
All of it is computed in fp32 or fp64 and rounded once. `to`: where to write them, if not into tensors of its own;
rows may lie apart, as in one buffer for all. With k and v of some images alone (and `regions.image` counted from the
first of them), `region_attention_backward` leaves the other groups' rows of dq as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from relvlm_kernels.dropout import keep_features, keep_scale
from relvlm_kernels.regions import Regions, box_mask
from relvlm_kernels.slots import Slots, by_image, by_sequence, owner, present

Gradients = tuple[Tensor, ...]  # of q, k and v
AddRows = Callable[[Tensor, Tensor, Tensor], Tensor]


def missing() -> str:
    return ""


def refusal(device: torch.device, dtype: torch.dtype, width: int | None) -> str:
    return ""


def description() -> str:
    return "plain PyTorch, any device and dtype"


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
    dtype, (q, k, v) = q.dtype, _wide(q, k, v)
    s = _region_scores(q, k, regions, scale)
    lse = s.scores.logsumexp(-1)
    dropped = _dropped(_weights(s.scores, lse), s.slots, dropout, seed)
    return s.slots.pack(s.fold(dropped) @ v.transpose(1, 2)).to(dtype), s.slots.pack(lse, -torch.inf)


def region_attention_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, regions: Regions, scale: float,
    dropout: float, seed: Tensor | None, to: Gradients | None = None,
) -> Gradients:  # fmt: skip
    like, (grad, q, k, v) = (q, k, v), _wide(grad, q, k, v)
    s = _region_scores(q, k, regions, scale)
    weights = _weights(s.scores, s.slots.pad(lse).transpose(1, 2))
    grad_BHQD = s.slots.heads(grad)
    dv = s.fold(_dropped(weights, s.slots, dropout, seed)).transpose(-1, -2) @ grad_BHQD
    dweights = _dropped(s.unfold(grad_BHQD @ v.permute(0, 2, 3, 1)), s.slots, dropout, seed)
    dscores = s.fold(_softmax_backward(dweights, weights)) * scale
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
    dtype, (q, k, v) = q.dtype, _wide(q, k, v)
    queries, keys, scores = _varlen_scores(q, k, cu_q, cu_k, scale)
    lse = scores.logsumexp(-1)
    dropped = _dropped(_weights(scores, lse), queries, dropout, seed)
    return queries.pack(dropped @ keys.heads(v)).to(dtype), queries.pack(lse, -torch.inf)


def varlen_attention_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, cu_q: Tensor, cu_k: Tensor,
    scale: float, dropout: float, seed: Tensor | None, to: Gradients | None = None,
) -> Gradients:  # fmt: skip
    like, (grad, q, k, v) = (q, k, v), _wide(grad, q, k, v)
    queries, keys, scores = _varlen_scores(q, k, cu_q, cu_k, scale)
    weights = _weights(scores, queries.pad(lse).transpose(1, 2))
    grad_pad = queries.heads(grad)
    dv = _dropped(weights, queries, dropout, seed).transpose(-1, -2) @ grad_pad
    dweights = _dropped(grad_pad @ keys.heads(v).transpose(-1, -2), queries, dropout, seed)
    dscores = _softmax_backward(dweights, weights) * scale
    dq, dk = dscores @ keys.heads(k), dscores.transpose(-1, -2) @ queries.heads(q)
    return _written((queries.pack(dq), keys.pack(dk), keys.pack(dv)), like, to)


def window_attention(qkv: Tensor, bias: Tensor, mask: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
    """See `windows.window_attention`."""
    _, _, v, scores = _window_scores(qkv, bias, mask, scale)
    lse = scores.logsumexp(-1)
    out = _weights(scores, lse) @ v
    return out.transpose(1, 2).to(qkv.dtype), lse.transpose(1, 2)


def window_attention_backward(
    grad: Tensor, qkv: Tensor, bias: Tensor, mask: Tensor | None, out: Tensor, lse: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    q, k, v, scores = _window_scores(qkv, bias, mask, scale)
    weights, dout = _weights(scores, lse.transpose(1, 2)), _wide(grad)[0].transpose(1, 2)
    dscores = _softmax_backward(dout @ v.transpose(-1, -2), weights)
    dv = weights.transpose(-1, -2) @ dout
    dq, dk = dscores @ k * scale, dscores.transpose(-1, -2) @ q * scale
    dqkv = torch.stack([x.transpose(1, 2) for x in (dq, dk, dv)], dim=2)
    return dqkv.to(qkv.dtype), dscores.sum(0).to(bias.dtype)


def _window_scores(qkv: Tensor, bias: Tensor, mask: Tensor | None, scale: float) -> tuple[Tensor, ...]:
    """q, k, v (B, H, N, D) and scores (B, H, N, N)."""
    q, k, v = _wide(qkv)[0].permute(2, 0, 3, 1, 4)
    scores = q @ k.transpose(-1, -2) * scale + bias
    if mask is not None:
        scores = (scores.unflatten(0, (-1, len(mask))) + mask[:, None]).flatten(0, 1)
    return q, k, v, scores


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


def box_mean(x: Tensor, box: Tensor, image: Tensor, grid: tuple[int, int]) -> Tensor:
    """See `ops.box_mean`. One matrix product per image over all its boxes: no patch is copied."""
    slots, weights_BGN, patches_BND = _box_weights(x, box, image, grid)
    return slots.pack_rows((weights_BGN @ patches_BND).flatten(0, 1)).to(x.dtype)


def box_mean_backward(grad: Tensor, x: Tensor, box: Tensor, image: Tensor, grid: tuple[int, int]) -> Tensor:
    slots, weights_BGN, patches_BND = _box_weights(x, box, image, grid)
    dx = torch.zeros_like(x)
    dpatches = weights_BGN.transpose(1, 2) @ slots.pad(*_wide(grad))
    dx[:, x.shape[1] - patches_BND.shape[1] :] = dpatches.to(x.dtype)
    return dx


def _box_weights(x: Tensor, box: Tensor, image: Tensor, grid: tuple[int, int]) -> tuple[Slots, Tensor, Tensor]:
    """Boxes by image, 1/n on the patches inside each (B, most boxes, N), and the patches."""
    (x,) = _wide(x)
    inside = box_mask(box, grid).to(x.dtype)
    slots = by_image(image.long(), torch.ones_like(image, dtype=torch.bool), x.shape[0])
    return slots, slots.pad(inside / inside.sum(-1, keepdim=True)), x[:, x.shape[1] - inside.shape[1] :]


def mrc_pool(h: Tensor, subject_rows: Tensor, object_rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """See `ops.mrc_pool`. Where triplets outnumber the rows of h, each row is projected once, as either part."""
    subject_weight, object_weight = weight.chunk(2, dim=1)
    if len(subject_rows) > len(h):
        out = torch.addmm(bias, h, subject_weight.T)[subject_rows]
        out += (h @ object_weight.T)[object_rows]
    else:
        out = torch.addmm(bias, h[subject_rows], subject_weight.T)
        out.addmm_(h[object_rows], object_weight.T)
    return out.relu_()


def _add_rows(to: Tensor, rows: Tensor, x: Tensor) -> Tensor:
    return to.index_add_(0, rows, x)


def mrc_pool_backward(
    grad: Tensor, h: Tensor, subject_rows: Tensor, object_rows: Tensor, weight: Tensor, bias: Tensor,
    out: Tensor, add_rows: AddRows = _add_rows,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """`add_rows(to, rows, x)` adds the rows of x to these of `to`."""
    grad = grad * (out > 0)
    dh, dweight = torch.zeros_like(h), torch.empty_like(weight, memory_format=torch.contiguous_format)
    for rows, part, dpart in zip(
        (subject_rows, object_rows), weight.chunk(2, dim=1), dweight.chunk(2, dim=1), strict=True
    ):
        if len(rows) > len(h):
            grad_of_row = add_rows(grad.new_zeros(len(h), grad.shape[1]), rows, grad)
            dh.addmm_(grad_of_row, part)
            torch.mm(grad_of_row.T, h, out=dpart)
        else:
            add_rows(dh, rows, grad @ part)
            torch.mm(grad.T, h[rows], out=dpart)
    return dh, dweight, grad.sum(0)


def add_norm(
    x: Tensor, residual: Tensor, weight: Tensor, shift: Tensor, eps: float, dropout: float, seed: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The normalised rows, the sums, and of these the mean and 1 / deviation; see `fused_rows.add_norm`."""
    dtype, (x, residual, weight, shift) = residual.dtype, _wide(x, residual, weight, shift)
    total = residual + _kept_features(x, dropout, seed)
    out, mean, rstd = torch.native_layer_norm(total, total.shape[1:], weight, shift, eps)
    return out.to(dtype), total.to(dtype), mean.flatten(), rstd.flatten()


def add_norm_backward(
    grad: Tensor, total: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor, dropout: float, seed: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of the residual, of x (no rows without dropout: the same), of weight and shift."""
    dtype, (grad, total, weight) = total.dtype, _wide(grad, total, weight)
    normal = (total - mean[:, None]) * rstd[:, None]
    weighed = grad * weight
    dtotal = weighed - weighed.mean(1, keepdim=True) - normal * (weighed * normal).mean(1, keepdim=True)
    dtotal *= rstd[:, None]
    dx = _kept_features(dtotal, dropout, seed) if dropout else dtotal.new_empty(0, dtotal.shape[1])
    dweight, dshift = (grad * normal).sum(0), grad.sum(0)
    return dtotal.to(dtype), dx.to(dtype), dweight.to(dtype), dshift.to(dtype)


def _kept_features(x: Tensor, dropout: float, seed: Tensor | None) -> Tensor:
    if not dropout or seed is None:
        return x
    return x * keep_features(seed, dropout, *x.shape).to(x.dtype)


def bias_gelu(x: Tensor, bias: Tensor) -> Tensor:
    """gelu(x + bias), by erf."""
    dtype, (x, bias) = x.dtype, _wide(x, bias)
    return torch.nn.functional.gelu(x + bias).to(dtype)


def bias_gelu_backward(grad: Tensor, x: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The result again, and the gradients of x and bias."""
    dtype, (grad, x, bias) = x.dtype, _wide(grad, x, bias)
    x = x + bias
    dx = torch.ops.aten.gelu_backward(grad, x)
    return torch.nn.functional.gelu(x).to(dtype), dx.to(dtype), dx.sum(0).to(dtype)


def _weights(scores: Tensor, lse: Tensor) -> Tensor:
    """exp(scores - lse); zeros, not NaN, where there is no key."""
    return (scores - lse.clamp(min=torch.finfo(lse.dtype).min)[..., None]).exp()


def _softmax_backward(grad: Tensor, weights: Tensor) -> Tensor:
    return weights * (grad - (grad * weights).sum(-1, keepdim=True))


def _dropped(x: Tensor, slots: Slots, dropout: float, seed: Tensor | None) -> Tensor:
    """Weights or their gradients (rows, H, queries, keys) under the keep-mask; as they are without dropout."""
    if not dropout or seed is None:
        return x
    return x * keep_scale(seed, dropout, slots.packed_rows(), x.shape[1], x.shape[3]).to(x.dtype)


def _masked(scores: Tensor, visible: Tensor) -> Tensor:
    return scores.masked_fill(~visible, -torch.inf)


def _wide(*tensors: Tensor) -> tuple[Tensor, ...]:
    """In the dtype that is computed in."""
    return tuple(x if x.dtype == torch.float64 else x.float() for x in tensors)
