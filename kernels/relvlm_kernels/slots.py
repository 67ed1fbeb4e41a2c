"""Packed rows in a padded layout: those of one image, or of one sequence, side by side.

Rows that no group or sequence owns, and those of images that are not there, have no place: zeros on the way back.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Slots(NamedTuple):
    """Where packed rows go in a padded layout of `shape`: `rows[i]` (or all, in order) at `place[i]`, row by row."""

    place: Tensor
    shape: tuple[int, int]
    packed: int  # rows
    rows: Tensor | None = None  # those that have a place; the others are zeros

    def pad(self, x: Tensor) -> Tensor:
        rows, columns = self.shape
        flat = x.new_zeros(rows * columns, *x.shape[1:])
        x = x if self.rows is None else x.index_select(0, self.rows)
        return flat.index_copy_(0, self.place, x).view(rows, columns, *x.shape[1:])

    def heads(self, x: Tensor) -> Tensor:
        """(T, H, D) -> (rows, H, columns, D)."""
        return self.pad(x).transpose(1, 2)

    def pack(self, x: Tensor, other: float = 0.0) -> Tensor:
        """(rows, H, columns, ...) -> (T, H, ...); `other` for rows without a place."""
        return self.pack_rows(x.transpose(1, 2).flatten(0, 1), other)

    def pack_rows(self, x: Tensor, other: float = 0.0) -> Tensor:
        """(rows * columns, ...) -> (T, ...)."""
        x = x.index_select(0, self.place)
        if self.rows is None:
            return x
        return x.new_full((self.packed, *x.shape[1:]), other).index_copy_(0, self.rows, x)

    def packed_rows(self) -> Tensor:
        """(rows, columns) int64: the packed row in each place; 0 in the padding."""
        return self.pad(torch.arange(self.packed, device=self.place.device))


def owner(offsets: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """(rows,) int64: the group or sequence of each packed row; and whether it is in one (else the group is any)."""
    index = torch.arange(rows, device=offsets.device)
    owned = (index >= offsets[0]) & (index < offsets[-1])
    found = torch.searchsorted(offsets[1:].long(), index, right=True)
    return found.clamp(max=max(0, len(offsets) - 2)), owned


def by_sequence(cu: Tensor, rows: int) -> Slots:
    sequence, owned = owner(cu, rows)
    longest = int((cu[1:] - cu[:-1]).max()) if len(cu) > 1 else 0
    place = sequence * longest + torch.arange(rows, device=cu.device) - cu[sequence]
    return _slots(place, owned, (len(cu) - 1, longest))


def by_image(image_T: Tensor, owned_T: Tensor, images: int) -> Slots:
    """Rows of one image side by side, in their packed order; those of images that are not there have no place."""
    owned_T = owned_T & present(image_T, images)
    image_T = torch.where(owned_T, image_T, images)  # the others: one image more
    order = torch.argsort(image_T, stable=True)
    counts = torch.bincount(image_T, minlength=images + 1)
    starts = counts.cumsum(0) - counts
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order), device=order.device) - starts[image_T[order]]
    longest = int(counts[:images].max()) if images else 0
    return _slots(image_T * longest + rank, owned_T, (images, longest))


def _slots(place_T: Tensor, there_T: Tensor, shape: tuple[int, int]) -> Slots:
    if there_T.all():
        return Slots(place_T, shape, len(place_T))
    rows = there_T.nonzero()[:, 0]
    return Slots(place_T[rows], shape, len(place_T), rows)


def present(image: Tensor, images: int) -> Tensor:
    return (image >= 0) & (image < images)
