"""What a program works on. Of attention: an owner of queries and keys, an image (BOXED) or a sequence."""

import triton
import triton.language as tl


@triton.jit
def tile_columns(SIZE: tl.constexpr, BLOCK: tl.constexpr):
    """(number among the programs for the same columns, which tile of columns, columns) of this program."""
    tiles: tl.constexpr = (SIZE + BLOCK - 1) // BLOCK
    tile = tl.program_id(0) % tiles
    return tl.program_id(0) // tiles, tile, tile * BLOCK + tl.arange(0, BLOCK)


@triton.jit
def program(heads, splits):
    """(owner, head, split) of this program: they are owners x heads x splits."""
    place = tl.program_id(0)
    return place // splits // heads, (place // splits) % heads, place % splits


@triton.jit
def keys_of(
    k, v, key_starts, owner, head, keys, k_owner, k_row, k_head, v_owner, v_row, v_head, BOXED: tl.constexpr
):  # fmt: skip
    """Keys and values of an owner and head, the place of the first among all keys, and how many there are."""
    if BOXED:
        first = owner.to(tl.int64) * keys
        k += owner.to(tl.int64) * k_owner
        v += owner.to(tl.int64) * v_owner
    else:
        first = tl.load(key_starts + owner).to(tl.int64)
        keys = tl.load(key_starts + owner + 1) - first.to(tl.int32)
        k += first * k_row
        v += first * v_row
    return k + head * k_head, v + head * v_head, first, keys


@triton.jit
def with_rows_outside(first, end, owner, owners, rows, BOXED: tl.constexpr):
    """(first, end) and, of the first and last sequence, the rows before and after that no sequence owns.

    These become zeros. Of images the plan has put them in its table.
    """
    if not BOXED:
        first = tl.where(owner == 0, 0, first)
        end = tl.where(owner == owners - 1, rows, end)
    return first, end
