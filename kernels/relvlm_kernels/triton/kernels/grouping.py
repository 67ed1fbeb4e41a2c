"""The query rows of each image side by side: groups come in any order."""

import triton
import triton.language as tl


@triton.jit
def _owners(image, g, groups, strangers):
    """Owners of groups, and whether their image is there; else it is `strangers`, -1 for none."""
    found = tl.load(image + g, mask=g < groups, other=-1)
    present = (found >= 0) & (found < tl.num_programs(0))
    owners = tl.where(present, found, strangers)
    return tl.where(g < groups, owners, -1), present


@triton.jit
def _write(table, rows, position, row, ys, xs, flags, mask):
    at = table + position
    tl.store(at, row, mask=mask)
    tl.store(at + rows, ys, mask=mask)
    tl.store(at + 2 * rows, xs, mask=mask)
    tl.store(at + 3 * rows, flags, mask=mask)


@triton.jit
def _write_rows_outside(offsets, table, groups, rows, place, BLOCK: tl.constexpr):
    """The rows that no group owns go to the last image, and see nothing. Returns the place after them."""
    before = tl.load(offsets)
    inside = tl.load(offsets + groups) - before
    outside = tl.maximum(rows - inside, 0)
    for start in range(0, outside, BLOCK):
        i = start + tl.arange(0, BLOCK)
        row = tl.where(i < before, i, i + inside)
        none = i * 0
        _write(table, rows, place + i, row, none, none, none, (i < outside) & (place + i < rows))
    return place + outside


@triton.jit(do_not_specialize=["groups", "rows", "strangers"])
def plan(
    offsets, image, box, prefix, mean, starts, table, with_mean, groups, rows, strangers,
    BLOCK_G: tl.constexpr, BLOCK_R: tl.constexpr,
):  # fmt: skip
    """One program per image reads every group's image: a few KB, from the cache for all but the first."""
    owner = tl.program_id(0)
    earlier = 0
    for block in range(0, groups, BLOCK_G):
        g = block + tl.arange(0, BLOCK_G)
        there = g < groups
        length = tl.load(offsets + g + 1, mask=there, other=0) - tl.load(offsets + g, mask=there, other=0)
        owners, _ = _owners(image, g, groups, strangers)
        earlier += tl.sum(tl.where((owners >= 0) & (owners < owner), length, 0))
    tl.store(starts + owner, earlier)
    any_mean = 0
    for block in range(0, groups, BLOCK_G):
        g = block + tl.arange(0, BLOCK_G)
        owners, present = _owners(image, g, groups, strangers)
        own = owners == owner
        sees = own & present
        first = tl.load(offsets + g, mask=own, other=0)
        length = tl.load(offsets + g + 1, mask=own, other=0) - first
        place = earlier + tl.cumsum(length) - length
        x0, y0 = tl.load(box + g * 4, mask=sees, other=0), tl.load(box + g * 4 + 1, mask=sees, other=0)
        x1, y1 = tl.load(box + g * 4 + 2, mask=sees, other=0), tl.load(box + g * 4 + 3, mask=sees, other=0)
        ys, xs = y0 | (y1 << 16), x0 | (x1 << 16)
        has_prefix = tl.load(prefix + g, mask=sees, other=0).to(tl.int32)
        has_mean = tl.load(mean + g, mask=sees, other=0).to(tl.int32)
        any_mean = tl.maximum(any_mean, tl.max(has_mean))
        flags = has_prefix + 2 * has_mean
        for start in range(0, tl.max(length), BLOCK_R):
            token = start + tl.arange(0, BLOCK_R)[None, :]
            position = place[:, None] + token
            mask = (token < length[:, None]) & (position < rows)
            none = token * 0
            _write(
                table, rows, position, first[:, None] + token, ys[:, None] + none, xs[:, None] + none,
                flags[:, None] + none, mask,
            )  # fmt: skip
        earlier += tl.sum(length)
    tl.store(with_mean + owner, any_mean)
    if owner == tl.num_programs(0) - 1:
        end = _write_rows_outside(offsets, table, groups, rows, earlier, BLOCK_G)
        tl.store(starts + owner + 1, end)
