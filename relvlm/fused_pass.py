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
    """`add` pairs of (text, view) with the rows to read, then `run` once."""

    def __init__(self, text_cu: Tensor, all_views: Regions) -> None:
        self.text_cu = text_cu
        self.all_views = all_views
        self.parts: list[tuple[Tensor, Tensor, Tensor | None]] = []

    def add(self, texts: Tensor, part_views: Tensor, rows: Tensor | None = None) -> None:
        """Let text `texts[i]` look at view `part_views[i]`.

        Of the part's packed tokens, `rows` (increasing) are read, by default each text's first ([CLS]).
        """
        self.parts.append((texts, part_views, rows))

    def run(self, fusion: FusionEncoder, text_TD: Tensor, image_BSD: Tensor) -> list[Tensor]:
        """The fused rows read by each part, in the order of `add`; all parts go through in one packed batch."""
        texts = torch.cat([texts for texts, _, _ in self.parts])
        seen = torch.cat([part_views for _, part_views, _ in self.parts])
        rows, offsets = gather_rows(self.text_cu, texts)
        read = self._rows_to_read(offsets.long())
        regions = self.all_views.pick(seen, offsets)
        fused = fusion(text_TD[rows], image_BSD, regions, torch.cat(read))
        return list(fused.split([len(part) for part in read]))

    def _rows_to_read(self, offsets: Tensor) -> list[Tensor]:
        read, first = [], 0
        for texts, _, rows in self.parts:
            starts = offsets[first : first + len(texts)]
            read.append(starts if rows is None else rows + offsets[first])
            first += len(texts)
        return read
