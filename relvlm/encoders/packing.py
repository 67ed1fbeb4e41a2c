"""Index arithmetic of packed sequences: rows of many sequences one after another, no padding."""

from __future__ import annotations

import torch
from torch import Tensor


def offsets_of(lengths: Tensor) -> Tensor:
    """(n,) lengths -> (n + 1,) int32 offsets."""
    return torch.nn.functional.pad(lengths.cumsum(0), (1, 0)).to(torch.int32)


def gather_rows(cu: Tensor, sequences: Tensor, total: int | None = None) -> tuple[Tensor, Tensor]:
    """Rows (int64) of the `sequences` of a packed batch, in that order and with repetition, and their offsets.

    `total`, the number of these rows, spares reading it back from the device.
    """
    cu = cu.long()
    lengths = (cu[1:] - cu[:-1])[sequences]
    offsets = offsets_of(lengths)
    start = torch.repeat_interleave(cu[:-1][sequences] - offsets[:-1], lengths, output_size=total)
    return start + torch.arange(len(start), device=cu.device), offsets


def read_offsets(read: Tensor, cu: Tensor) -> Tensor:
    """Offsets (n + 1,) int32 of the increasing rows `read` by the sequence that they lie in."""
    return torch.searchsorted(read, cu.long()).to(torch.int32)


def positions(cu: Tensor, rows: int) -> Tensor:
    """(rows,) int64: the place of each packed row in its sequence."""
    index = torch.arange(rows, device=cu.device)
    return index - cu.long()[torch.searchsorted(cu[1:].long(), index, right=True)]


def pack(padded: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of (B, L, ...) where the (B, L) mask of leading tokens is set, and the offsets."""
    mask = mask.bool()
    return padded[mask], offsets_of(mask.sum(1))


def unpack(rows: Tensor, mask: Tensor) -> Tensor:
    """Inverse of `pack`: (B, L, ...) with zeros where the mask is not set."""
    mask = mask.bool()
    padded = rows.new_zeros(*mask.shape, *rows.shape[1:])
    padded[mask] = rows
    return padded
