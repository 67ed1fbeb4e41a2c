"""Forward of the attention ops: one program for the queries of one image (or sequence) and head, a tile at a time."""

import triton
import triton.language as tl

from relvlm_kernels.triton.kernels.masks import MEAN, as_weights, kept, key_range, query_rows, see, tile_start
from relvlm_kernels.triton.kernels.owners import keys_of, program, with_rows_outside

LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def _attend(
    q, k, v, k_row, v_row, row, ys, xs, flags, exists, head, seed, scale, keep_scale, threshold, keys, prefix, width,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_K: tl.constexpr, BOXED: tl.constexpr, BITS: tl.constexpr,
    DROPOUT: tl.constexpr, WITH_MEAN: tl.constexpr,
):  # fmt: skip
    """Output and log-sum-exp of a tile of queries; keys are read once.

    The mean token's score is known after the last key only. Its value is the mean of the box's values, so their plain
    sum is kept beside the weighted one.
    """
    d = tl.arange(0, BLOCK_D)
    peak = tl.full([q.shape[0]], -float("inf"), tl.float32)
    total = tl.zeros([q.shape[0]], tl.float32)
    out = tl.zeros([q.shape[0], BLOCK_D], tl.float32)
    if WITH_MEAN:
        score_sum = tl.zeros([q.shape[0]], tl.float32)
        value_sum = tl.zeros([q.shape[0], BLOCK_D], tl.float32)
    before, low, tiles = key_range(ys, flags, exists, keys, prefix, width, BLOCK_K, BOXED)
    for tile in range(0, tiles):
        key = tile_start(tile, before, low, BLOCK_K) + tl.arange(0, BLOCK_K)
        there = (key < keys)[:, None] & (d < D)[None, :]
        k_tile = tl.load(k + key[:, None] * k_row + d[None, :], mask=there, other=0.0)
        v_tile = tl.load(v + key[:, None] * v_row + d[None, :], mask=there, other=0.0)
        scores = tl.dot(q, tl.trans(k_tile), input_precision="ieee") * scale
        visible, inside = see(ys[:, None], xs[:, None], flags[:, None], key[None, :], keys, prefix, width, BOXED, BITS)
        if WITH_MEAN:
            score_sum += tl.sum(tl.where(inside, scores, 0.0), 1)
            value_sum = tl.dot(as_weights(inside, scores, v_tile.dtype), v_tile, value_sum, input_precision="ieee")
        scores = tl.where(visible, scores, -float("inf"))
        higher = tl.maximum(peak, tl.max(scores, 1))
        finite = tl.where(higher == -float("inf"), 0.0, higher)
        fade = tl.exp2(peak - finite)
        weights = tl.exp2(scores - finite[:, None])
        total = total * fade + tl.sum(weights, 1)
        if DROPOUT:
            keep = kept(seed, key[None, :], row[:, None], head, threshold)
            weights = tl.where(keep, weights * keep_scale, 0.0)
        out = tl.dot(weights.to(v_tile.dtype), v_tile, out * fade[:, None], input_precision="ieee")
        peak = higher
    if WITH_MEAN:
        patches = (((ys >> 16) - (ys & 0xFFFF)) * ((xs >> 16) - (xs & 0xFFFF))).to(tl.float32)
        score = score_sum / tl.maximum(patches, 1.0)
        score = tl.where((flags & MEAN) != 0, score, -float("inf"))
        higher = tl.maximum(peak, score)
        finite = tl.where(higher == -float("inf"), 0.0, higher)
        fade = tl.exp2(peak - finite)
        weight = tl.exp2(score - finite)
        total = total * fade + weight
        if DROPOUT:
            weight = tl.where(kept(seed, keys, row, head, threshold), weight * keep_scale, 0.0)
        out = out * fade[:, None] + value_sum * (weight / tl.maximum(patches, 1.0))[:, None]
        peak = higher
    norm = tl.where(total == 0.0, 1.0, total)  # of a query without keys: output 0, lse -inf
    return out / norm[:, None], (peak + tl.log2(norm)) / LOG2_E


@triton.jit(do_not_specialize=["threshold", "rows", "heads", "keys", "prefix", "width", "splits"])
def attention_forward(
    q, k, v, out, lse, starts, table, with_mean, key_starts, seed, scale, keep_scale, threshold,
    rows, heads, keys, prefix, width, splits, q_row, q_head, k_owner, k_row, k_head, v_owner, v_row, v_head,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, BOXED: tl.constexpr,
    BITS: tl.constexpr, DROPOUT: tl.constexpr,
):  # fmt: skip
    """Programs: owners (images or sequences) x heads x splits; a split takes every `splits`-th tile of queries.

    The number of queries of an owner is known on the device alone, so the grid does not depend on it.
    """
    owner, head, split = program(heads, splits)
    first, end = tl.load(starts + owner), tl.load(starts + owner + 1)
    low, high = with_rows_outside(first, end, owner, tl.num_programs(0) // splits // heads, rows, BOXED)
    k, v, _, keys = keys_of(k, v, key_starts, owner, head, keys, k_owner, k_row, k_head, v_owner, v_row, v_head, BOXED)
    d = tl.arange(0, BLOCK_D)
    for start in range(low + split * BLOCK_Q, high, splits * BLOCK_Q):
        position = start + tl.arange(0, BLOCK_Q)
        exists = position < high
        row, ys, xs, flags, owned = query_rows(table, rows, position, exists, first, end, BOXED)
        there = exists[:, None] & (d < D)[None, :]
        q_at = q + row[:, None].to(tl.int64) * q_row + head * q_head + d[None, :]
        q_tile = tl.load(q_at, mask=there, other=0.0)
        mean = False
        if BOXED:
            mean = tl.load(with_mean + owner) != 0
        if mean:
            result, result_lse = _attend(
                q_tile, k, v, k_row, v_row, row, ys, xs, flags, exists, head, seed, scale, keep_scale, threshold,
                keys, prefix, width, D, BLOCK_D, BLOCK_K, BOXED, BITS, DROPOUT, True,
            )  # fmt: skip
        else:
            result, result_lse = _attend(
                q_tile, k, v, k_row, v_row, row, ys, xs, flags, exists, head, seed, scale, keep_scale, threshold,
                keys, prefix, width, D, BLOCK_D, BLOCK_K, BOXED, BITS, DROPOUT, False,
            )  # fmt: skip
        if not BOXED:  # of an image, rows that it does not own see nothing
            result = tl.where(owned[:, None], result, 0.0)
            result_lse = tl.where(owned, result_lse, -float("inf"))
        place = row.to(tl.int64) * heads + head
        tl.store(out + place[:, None] * D + d[None, :], result.to(out.dtype.element_ty), mask=there)
        tl.store(lse + place, result_lse, mask=exists)
