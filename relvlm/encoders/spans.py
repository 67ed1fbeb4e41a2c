"""Texts that look at packed image tokens: each at one sequence of them, several at the same one or none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from relvlm.encoders.packing import gather_rows, read_offsets


@dataclass(frozen=True)
class Spans:
    """offsets (G + 1,): query rows by group; query_cu, key_cu (V + 1,): query and key rows by sequence.

    Groups that look at one sequence lie side by side, so that its keys serve them all at once.
    """

    offsets: Tensor
    query_cu: Tensor
    key_cu: Tensor

    def reading(self, read: Tensor) -> Spans:
        """The same for the increasing query rows `read` alone."""
        return replace(
            self,
            offsets=read_offsets(read, self.offsets),
            query_cu=read_offsets(read, self.query_cu),
        )


def fuse_spans(
    fusion: Callable[..., Tensor],
    x_TD: Tensor,
    offsets: Tensor,
    tokens_KD: Tensor,
    key_cu: Tensor,
    sequence_G: Tensor,
    read: Tensor | None = None,
) -> Tensor:
    """Fused rows (T, D), or those of `read` (any order), of groups in any order; group g sees `sequence_G[g]`.

    `fusion` is a FusionEncoder, of rows in the order of their sequences.
    """
    order = sequence_G.argsort(stable=True)
    moved, moved_offsets = gather_rows(offsets, order, total=len(x_TD))
    sequences = torch.arange(len(key_cu), device=key_cu.device)
    first_group = torch.searchsorted(sequence_G[order].contiguous(), sequences)
    spans = Spans(moved_offsets, moved_offsets[first_group], key_cu)
    place = torch.empty_like(moved)
    place[moved] = torch.arange(len(moved), device=moved.device)
    if read is None:
        return fusion(x_TD[moved], tokens_KD, spans)[place]
    increasing, origin = place[read].sort()
    return fusion(x_TD[moved], tokens_KD, spans, increasing)[origin.argsort()]
