"""What the attention kernels share: which keys a query sees, and which of them dropout keeps.

A query row's box comes as three words (see plan.py): y0 | y1 << 16, x0 | x1 << 16, and flags. Shapes broadcast, so
that the forward has queries down and keys across, the backward of K and V the other way round.
"""

import triton
import triton.language as tl

PREFIX = tl.constexpr(1)
MEAN = tl.constexpr(2)
LAST_BIT = tl.constexpr(1 << 30)
ROUNDS = tl.constexpr(7)  # of Philox


@triton.jit
def query_rows(table, rows, position, exists, first, end, BOXED: tl.constexpr):
    """Packed row, box words and flags of the queries at sorted positions, and whether a sequence or image owns them.

    Words of an image's queries that do not exist see none. Of a sequence, [first, end) are its own.
    """
    owned = exists
    if BOXED:
        row = tl.load(table + position, mask=exists, other=0)
        ys = tl.load(table + rows + position, mask=exists, other=0)
        xs = tl.load(table + 2 * rows + position, mask=exists, other=0)
        flags = tl.load(table + 3 * rows + position, mask=exists, other=0)
    else:
        row = tl.where(exists, position, 0)
        owned = exists & (position >= first) & (position < end)
        ys = row
        xs = row
        flags = row
    return row, ys, xs, flags, owned


@triton.jit
def see(ys, xs, flags, key, keys, prefix, width, BOXED: tl.constexpr, BITS: tl.constexpr):
    """(visible, inside): which keys each query sees, and which of these are patches of its box; a sequence's all.

    BITS, for grids of at most 30 x 30: a box is one word of bits for its rows and one for its columns, so that a pair
    of query and key costs two logical operations instead of four comparisons and what joins them.
    """
    if BOXED:
        patch = tl.maximum(key - prefix, 0)
        row = patch // width
        column = patch - row * width
        is_patch = (key >= prefix) & (key < keys)
        y0, y1 = ys & 0xFFFF, ys >> 16
        x0, x1 = xs & 0xFFFF, xs >> 16
        if BITS:
            is_prefix = key < prefix
            key_row = tl.where(is_patch, 1 << row, tl.where(is_prefix, LAST_BIT, 0))
            key_column = tl.where(is_patch, 1 << column, tl.where(is_prefix, 0, LAST_BIT))
            box_rows = (1 << y1) - (1 << y0)
            other_column = key_column & ~((1 << x1) - (1 << x0))
            visible = ((key_row & ~(box_rows | ((flags & PREFIX) << 30))) | other_column) == 0
            inside = ((key_row & ~box_rows) | other_column) == 0
        else:
            inside = (row >= y0) & (row < y1) & (column >= x0) & (column < x1) & is_patch
            visible = inside | ((key < prefix) & ((flags & PREFIX) != 0))
    else:
        visible = key < keys
        inside = visible
    return visible, inside


@triton.jit
def as_weights(inside, scores, dtype: tl.constexpr):
    """1 where inside, 0 elsewhere (and where the score is NaN, as the result is then anyway).

    Without the scores the compiler works the mask out a second time, in the layout of the product's operand, for which
    every thread holds the boxes of many rows: 90 registers more.
    """
    return tl.where(inside & (scores == scores), 1.0, 0.0).to(dtype)


@triton.jit
def key_range(ys, flags, exists, keys, prefix, width, BLOCK: tl.constexpr, BOXED: tl.constexpr):
    """(tiles of prefix tokens, first patch, tiles in all) that any of these queries sees."""
    if BOXED:
        low = prefix + tl.min(tl.where(exists, ys & 0xFFFF, 0xFFFF)) * width
        high = prefix + tl.max(ys >> 16) * width
        before = tl.cdiv(prefix, BLOCK) * tl.max(flags & PREFIX)
        low = tl.maximum(low, before * BLOCK)
        return before, low, before + tl.cdiv(tl.maximum(high - low, 0), BLOCK)
    return keys * 0, keys * 0, tl.cdiv(keys, BLOCK)


@triton.jit
def tile_start(index, before, low, BLOCK: tl.constexpr):
    """First key of the tile `index` of a `key_range`."""
    return tl.where(index < before, index * BLOCK, low + (index - before) * BLOCK)


@triton.jit
def kept(seed, key, row, head, threshold):
    """Keep-mask of dropout: the word of (key, packed row, head) reaches the threshold; see dropout.py."""
    key, row = key + row * 0, row + key * 0
    quad = ((key >> 4) << 2) + ((key >> 1) & 3)
    a, b, c, d = tl.philox(tl.load(seed), quad, row, row * 0 + head, row * 0, n_rounds=ROUNDS)
    odd = (key & 1) != 0
    word = tl.where((key & 8) != 0, tl.where(odd, d, c), tl.where(odd, b, a))
    return word >= threshold.to(tl.uint32, bitcast=True)
