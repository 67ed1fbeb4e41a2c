"""Collects what every objective wants from the fusion encoder and runs it once."""

from __future__ import annotations

import torch
from torch import Tensor

from relvlm.data.batch import Batch
from relvlm.encoders.fusion import FusionEncoder
from relvlm.encoders.packing import gather_rows
from relvlm_kernels import Regions


def views(batch: Batch, grid: tuple[int, int]) -> Regions:
    """2 G views: what each group sees (its box), then the whole image of each group. Offsets are unset.

    A whole image shows its [CLS] and all patches; a region its patches and their mean (X-VLM with Swin).
    """
    whole = Regions.whole(batch.text_cu, batch.image_index, grid)
    return Regions(
        offsets=batch.text_cu,
        image=torch.cat([batch.image_index, whole.image]),
        box=torch.cat([batch.box, whole.box]),
        prefix=torch.cat([batch.whole, whole.prefix]),
        mean=torch.cat([~batch.whole, whole.mean]),
        grid=grid,
    )


class FusedPass:
    """`add` pairs of (text, view), `run` once, then read the rows of each part."""

    def __init__(self, text_cu: Tensor, all_views: Regions) -> None:
        self.text_cu = text_cu
        self.all_views = all_views
        self.parts: list[tuple[Tensor, Tensor]] = []
        self.offsets = text_cu

    def add(self, texts: Tensor, part_views: Tensor) -> int:
        """Let text `texts[i]` look at view `part_views[i]`; returns the part's name."""
        self.parts.append((texts, part_views))
        return len(self.parts) - 1

    def run(self, fusion: FusionEncoder, text_TD: Tensor, image_BSD: Tensor) -> Tensor:
        """Fused tokens of all parts, packed one after another."""
        texts, seen = (torch.cat(column) for column in zip(*self.parts, strict=True))
        rows, self.offsets = gather_rows(self.text_cu, texts)
        return fusion(text_TD[rows], image_BSD, self.all_views.pick(seen, self.offsets))

    def first_rows(self, part: int) -> Tensor:
        """Rows of the part's [CLS] tokens."""
        start = sum(len(texts) for texts, _ in self.parts[:part])
        return self.offsets[start : start + len(self.parts[part][0])].long()

    def first_row(self, part: int) -> Tensor:
        """First row of the part (0-dim)."""
        return self.offsets[sum(len(texts) for texts, _ in self.parts[:part])].long()
