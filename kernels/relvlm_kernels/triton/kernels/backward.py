"""Backward of the attention ops in two kernels: by tiles of queries (dQ), then by tiles of keys (dK, dV).

Each gradient has one writer, so nothing is added up in memory and equal inputs give equal bits. With the mean token,
p_m its weight, n the patches of the box, keep the dropout factors, dP_j = grad . v_j and delta = grad . out:
  dV_j = sum_t (keep_j p_j + [j in box] keep_m p_m / n) grad_t
  dS_j = p_j (keep_j dP_j - delta) + [j in box] p_m (keep_m mean(dP) - delta) / n
"""

import triton
import triton.language as tl

from relvlm_kernels.triton.kernels.forward import LOG2_E
from relvlm_kernels.triton.kernels.masks import MEAN, as_weights, kept, key_range, query_rows, see, tile_start
from relvlm_kernels.triton.kernels.owners import keys_of, program, with_rows_outside


@triton.jit
def _weights(scores, lse, visible):
    return tl.exp2(tl.where(visible, scores - lse, -float("inf")))


@triton.jit
def _query_gradient(
    q, grad, lse, delta, k, v, k_row, v_row, row, ys, xs, flags, exists, head, seed, scale, keep_scale, threshold,
    keys, prefix, width, D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_K: tl.constexpr, BOXED: tl.constexpr,
    BITS: tl.constexpr, DROPOUT: tl.constexpr, WITH_MEAN: tl.constexpr,
):  # fmt: skip
    """dQ / scale of a tile of queries, and per query the mean token's share in P and dS of each patch of its box."""
    d = tl.arange(0, BLOCK_D)
    dq = tl.zeros([q.shape[0], BLOCK_D], tl.float32)
    share = tl.zeros([q.shape[0]], tl.float32)
    dshare = share
    if WITH_MEAN:
        score_sum = share
        dweight_sum = share
        key_sum = dq
    before, low, tiles = key_range(ys, flags, exists, keys, prefix, width, BLOCK_K, BOXED)
    for tile in range(0, tiles):
        key = tile_start(tile, before, low, BLOCK_K) + tl.arange(0, BLOCK_K)
        there = (key < keys)[:, None] & (d < D)[None, :]
        k_tile = tl.load(k + key[:, None] * k_row + d[None, :], mask=there, other=0.0)
        v_tile = tl.load(v + key[:, None] * v_row + d[None, :], mask=there, other=0.0)
        scores = tl.dot(q, tl.trans(k_tile), input_precision="ieee") * scale
        dweights = tl.dot(grad, tl.trans(v_tile), input_precision="ieee")
        visible, inside = see(ys[:, None], xs[:, None], flags[:, None], key[None, :], keys, prefix, width, BOXED, BITS)
        if WITH_MEAN:
            score_sum += tl.sum(tl.where(inside, scores, 0.0), 1)
            dweight_sum += tl.sum(tl.where(inside, dweights, 0.0), 1)
            key_sum = tl.dot(as_weights(inside, scores, k_tile.dtype), k_tile, key_sum, input_precision="ieee")
        if DROPOUT:
            keep = kept(seed, key[None, :], row[:, None], head, threshold)
            dweights = tl.where(keep, dweights * keep_scale, 0.0)
        dscores = _weights(scores, lse[:, None], visible) * (dweights - delta[:, None])
        dq = tl.dot(dscores.to(k_tile.dtype), k_tile, dq, input_precision="ieee")
    if WITH_MEAN:
        patches = tl.maximum(((ys >> 16) - (ys & 0xFFFF)) * ((xs >> 16) - (xs & 0xFFFF)), 1).to(tl.float32)
        weight = _weights(score_sum / patches, lse, (flags & MEAN) != 0)
        factor = share + 1.0
        if DROPOUT:
            factor = tl.where(kept(seed, keys, row, head, threshold), keep_scale, 0.0)
        share = factor * weight / patches
        dshare = weight * (factor * dweight_sum / patches - delta) / patches
        dq += dshare[:, None] * key_sum
    return dq, share, dshare


@triton.jit(do_not_specialize=["threshold", "rows", "heads", "keys", "prefix", "width", "splits"])
def attention_backward_q(
    q, k, v, grad, out, lse, dq, stats, starts, table, with_mean, key_starts, seed, scale, grad_scale, keep_scale,
    threshold, rows, heads, keys, prefix, width, splits, q_row, q_head, k_owner, k_row, k_head, v_owner, v_row,
    v_head, grad_row, grad_head, D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr, BOXED: tl.constexpr, BITS: tl.constexpr, DROPOUT: tl.constexpr,
):  # fmt: skip
    """Programs as in the forward. `stats` (3, T, H) keeps delta, share and dshare for the other kernel."""
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
        own = owned[:, None] & (d < D)[None, :]  # no gradient comes in at the others, so none comes out
        long_row = row.to(tl.int64)
        place = long_row * heads + head
        q_tile = tl.load(q + long_row[:, None] * q_row + head * q_head + d[None, :], mask=own, other=0.0)
        grad_at = grad + long_row[:, None] * grad_row + head * grad_head + d[None, :]
        grad_tile = tl.load(grad_at, mask=own, other=0.0)
        out_tile = tl.load(out + place[:, None] * D + d[None, :], mask=own, other=0.0)
        delta = tl.sum(grad_tile.to(tl.float32) * out_tile.to(tl.float32), 1)
        lse_tile = tl.load(lse + place, mask=owned, other=0.0) * LOG2_E
        mean = False
        if BOXED:
            mean = tl.load(with_mean + owner) != 0
        if mean:
            result, share, dshare = _query_gradient(
                q_tile, grad_tile, lse_tile, delta, k, v, k_row, v_row, row, ys, xs, flags, exists, head, seed,
                scale, keep_scale, threshold, keys, prefix, width, D, BLOCK_D, BLOCK_K, BOXED, BITS, DROPOUT, True,
            )  # fmt: skip
        else:
            result, share, dshare = _query_gradient(
                q_tile, grad_tile, lse_tile, delta, k, v, k_row, v_row, row, ys, xs, flags, exists, head, seed,
                scale, keep_scale, threshold, keys, prefix, width, D, BLOCK_D, BLOCK_K, BOXED, BITS, DROPOUT, False,
            )  # fmt: skip
        result = (result * grad_scale).to(dq.dtype.element_ty)
        tl.store(dq + place[:, None] * D + d[None, :], result, mask=there)
        tl.store(stats + place, delta, mask=exists)
        if BOXED:
            count = rows.to(tl.int64) * heads
            tl.store(stats + count + place, share, mask=exists)
            tl.store(stats + 2 * count + place, dshare, mask=exists)


@triton.jit
def _key_gradients(
    k, v, q, grad, lse, stats, table, first, end, key, head, seed, scale, keep_scale, threshold, rows, heads, keys,
    prefix, width, q_row, grad_row, D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_Q: tl.constexpr,
    BOXED: tl.constexpr, BITS: tl.constexpr, DROPOUT: tl.constexpr, WITH_MEAN: tl.constexpr,
):  # fmt: skip
    """dK / scale and dV of a tile of keys: keys down, queries across, so that no product needs its operand turned.

    No tile of queries is skipped: 32 of them come from several boxes, which hardly ever miss a key tile together, and
    a branch in the loop keeps the next tile from being read ahead (and costs 50 registers).
    """
    d = tl.arange(0, BLOCK_D)
    dk = tl.zeros([k.shape[0], BLOCK_D], tl.float32)
    dv = dk
    for start in range(first, end, BLOCK_Q):
        position = start + tl.arange(0, BLOCK_Q)
        exists = position < end
        row, ys, xs, flags, _owned = query_rows(table, rows, position, exists, first, end, BOXED)
        visible, inside = see(ys[None, :], xs[None, :], flags[None, :], key[:, None], keys, prefix, width, BOXED, BITS)
        there = exists[:, None] & (d < D)[None, :]
        long_row = row.to(tl.int64)
        place = long_row * heads + head
        q_tile = tl.load(q + long_row[:, None] * q_row + d[None, :], mask=there, other=0.0)
        grad_tile = tl.load(grad + long_row[:, None] * grad_row + d[None, :], mask=there, other=0.0)
        lse_tile = tl.load(lse + place, mask=exists, other=0.0) * LOG2_E
        delta = tl.load(stats + place, mask=exists, other=0.0)
        scores = tl.dot(k, tl.trans(q_tile), input_precision="ieee") * scale
        dweights = tl.dot(v, tl.trans(grad_tile), input_precision="ieee")
        weights = _weights(scores, lse_tile[None, :], visible)
        dropped = weights
        if DROPOUT:
            keep = kept(seed, key[:, None], row[None, :], head, threshold)
            dropped = tl.where(keep, weights * keep_scale, 0.0)
            dweights = tl.where(keep, dweights * keep_scale, 0.0)
        dscores = weights * (dweights - delta[None, :])
        if WITH_MEAN:
            count = rows.to(tl.int64) * heads
            share = tl.load(stats + count + place, mask=exists, other=0.0)
            dshare = tl.load(stats + 2 * count + place, mask=exists, other=0.0)
            dropped += tl.where(inside, share[None, :], 0.0)
            dscores += tl.where(inside, dshare[None, :], 0.0)
        dv = tl.dot(dropped.to(grad_tile.dtype), grad_tile, dv, input_precision="ieee")
        dk = tl.dot(dscores.to(q_tile.dtype), q_tile, dk, input_precision="ieee")
    return dk, dv


@triton.jit(do_not_specialize=["threshold", "rows", "heads", "keys", "prefix", "width", "splits"])
def attention_backward_kv(
    q, k, v, grad, lse, stats, dk, dv, starts, table, with_mean, key_starts, seed, scale, grad_scale, keep_scale,
    threshold, rows, heads, keys, prefix, width, splits, q_row, q_head, k_owner, k_row, k_head, v_owner, v_row,
    v_head, grad_row, grad_head, D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr, BOXED: tl.constexpr, BITS: tl.constexpr, DROPOUT: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """Programs: owners x heads x splits; a split takes every `splits`-th tile of the owner's keys.

    dk and dv are parts of rows of so many PARTS of (heads, D) each: a stride would cost registers.
    """
    owner, head, split = program(heads, splits)
    first, end = tl.load(starts + owner), tl.load(starts + owner + 1)
    all_keys = keys
    k, v, first_key, keys = keys_of(
        k, v, key_starts, owner, head, keys, k_owner, k_row, k_head, v_owner, v_row, v_head, BOXED
    )
    q += head * q_head
    grad += head * grad_head
    low, high = 0, keys
    if not BOXED:  # the first and the last sequence have the keys that are in none
        low, high = with_rows_outside(
            first_key.to(tl.int32), first_key.to(tl.int32) + keys, owner, tl.num_programs(0) // splits // heads,
            all_keys, BOXED,
        )  # fmt: skip
        low, high = low - first_key.to(tl.int32), high - first_key.to(tl.int32)
    d = tl.arange(0, BLOCK_D)
    for start in range(low + split * BLOCK_K, high, splits * BLOCK_K):
        key = start + tl.arange(0, BLOCK_K)
        there = (key < high)[:, None] & (d < D)[None, :]
        k_tile = tl.load(k + key[:, None] * k_row + d[None, :], mask=there, other=0.0)
        v_tile = tl.load(v + key[:, None] * v_row + d[None, :], mask=there, other=0.0)
        seen = key
        if not BOXED:
            seen = tl.where(key < 0, keys, key)  # by no query
        mean = False
        if BOXED:
            mean = tl.load(with_mean + owner) != 0
        if mean:
            dk_tile, dv_tile = _key_gradients(
                k_tile, v_tile, q, grad, lse, stats, table, first, end, seen, head, seed, scale, keep_scale, threshold,
                rows, heads, keys, prefix, width, q_row, grad_row, D, BLOCK_D, BLOCK_Q, BOXED, BITS, DROPOUT, True,
            )  # fmt: skip
        else:
            dk_tile, dv_tile = _key_gradients(
                k_tile, v_tile, q, grad, lse, stats, table, first, end, seen, head, seed, scale, keep_scale, threshold,
                rows, heads, keys, prefix, width, q_row, grad_row, D, BLOCK_D, BLOCK_Q, BOXED, BITS, DROPOUT, False,
            )  # fmt: skip
        place = ((first_key + key)[:, None] * (heads * PARTS) + head) * D + d[None, :]
        tl.store(dk + place, (dk_tile * grad_scale).to(dk.dtype.element_ty), mask=there)
        tl.store(dv + place, dv_tile.to(dv.dtype.element_ty), mask=there)
