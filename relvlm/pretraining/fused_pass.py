"""What the groups of a batch look at, and one pass of the fusion encoder for all that objectives want of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from relvlm.config.schema import SavingsConfig
from relvlm.data.batches.batch import Batch
from relvlm.encoders.fusion import FusionEncoder
from relvlm.encoders.packing import gather_rows
from relvlm.encoders.spans import fuse_spans
from relvlm.encoders.vision import VisionEncoder
from relvlm_kernels import Regions, box_mean


@dataclass(frozen=True)
class Seen:
    """Encoded images with 2 G views of them: what each group sees (its box), then the whole image of each group.

    Either `tokens` are (B, S, D) and `views` boxes of them (offsets unset), or tokens are packed, (K, D), and view v
    is their sequence `views[v]`. An `mrc` batch looks at no whole image: its second G views are not to be used.
    """

    tokens: Tensor
    views: Regions | Tensor
    key_cu: Tensor | None
    cls_GD: Tensor  # what stands for each group's view in ITC


def look(vision: VisionEncoder, batch: Batch, region_mask: str) -> Seen:
    """Encode a batch's images; `region_mask` is that of FusionConfig."""
    if region_mask == "late_vision" and batch.boxed:
        return _late_views(vision, batch)
    kept_BK = None if batch.boxed else vision.draw_patches(batch.pixels)
    image_BSD = vision(batch.pixels, kept_BK)
    if kept_BK is not None:
        return _kept_views(image_BSD, batch)
    grid = vision.grid_of(batch.pixels)
    whole_GD = image_BSD[batch.image_index.long(), 0]
    region_GD = box_mean(image_BSD, batch.box, batch.image_index, grid)
    cls_GD = torch.where(batch.whole[:, None], whole_GD, region_GD)
    return Seen(image_BSD, _box_views(batch, grid), None, cls_GD)


def _kept_views(image_BSD: Tensor, batch: Batch) -> Seen:
    """Whole images of which some patches are left: one row of them."""
    whole = Regions.whole(batch.text_cu, batch.image_index, (1, image_BSD.shape[1] - 1))
    image_G = batch.image_index.long()
    twice = torch.arange(len(image_G), device=image_G.device).repeat(2)
    return Seen(image_BSD, whole.pick(twice, batch.text_cu), None, image_BSD[image_G, 0])


def _box_views(batch: Batch, grid: tuple[int, int]) -> Regions:
    """A whole image shows its [CLS] and all patches; a region its patches and their mean (X-VLM with Swin)."""
    whole = Regions.whole(batch.text_cu, batch.image_index, grid)
    return Regions(
        offsets=batch.text_cu,
        image=torch.cat([batch.image_index, whole.image]),
        box=torch.cat([batch.box, whole.box]),
        prefix=torch.cat([batch.whole, whole.prefix]),
        mean=torch.cat([~batch.whole, whole.mean]),
        grid=grid,
    )


def _late_views(vision: VisionEncoder, batch: Batch) -> Seen:
    """A region shows its own [CLS] and patches, masked in the last vision blocks (X-VLM with ViT)."""
    region, images = batch.region, batch.aligned > 0
    tokens_KD, key_cu = vision.late_regions(
        batch.pixels, batch.image_index[region], batch.box[region], images, batch.region_patches
    )
    own_G = batch.image_index.long()
    first = len(batch.pixels) if images else 0
    own_G = own_G.index_copy(0, region, first + torch.arange(len(region), device=region.device))
    views = torch.cat([own_G, batch.image_index.long()])
    return Seen(tokens_KD, views, key_cu, tokens_KD[key_cu.long()[own_G]])


class Question(NamedTuple):
    """Texts that look at views, and `rows` to read of their packed tokens (`tokens`: how many, if the host knows)."""

    texts: Tensor
    views: Tensor
    rows: Tensor | None
    tokens: int | None


class FusedPass:
    """`add` pairs of (text, view) with the rows to read, then `run` once."""

    def __init__(self, text_cu: Tensor, seen: Seen, savings: SavingsConfig) -> None:
        self.text_cu = text_cu
        self.seen = seen
        self.savings = savings
        self.parts: list[Question] = []

    def add(self, texts: Tensor, views: Tensor, rows: Tensor | None = None, tokens: int | None = None) -> int:
        """Let text `texts[i]` look at view `views[i]`; returns the part's place in what `run` returns.

        Of the part's packed tokens, `rows` (increasing) are read, by default each text's first ([CLS]). Where the
        number of `tokens` of each part is given, nothing is read back from the device.
        """
        self.parts.append(Question(texts, views, rows, tokens))
        return len(self.parts) - 1

    def run(self, fusion: FusionEncoder, text_TD: Tensor) -> list[Tensor]:
        """The fused rows read by each part, in the order of `add`; all parts go through in one packed batch."""
        if self.savings.one_pass:
            return self._run(self.parts, fusion, text_TD)
        return [rows for part in self.parts for rows in self._run([part], fusion, text_TD)]

    def _run(self, parts: list[Question], fusion: FusionEncoder, text_TD: Tensor) -> list[Tensor]:
        texts = torch.cat([part.texts for part in parts])
        index = torch.cat([part.views for part in parts])
        known = [part.tokens for part in parts if part.tokens is not None]
        total = sum(known) if len(known) == len(parts) else None
        rows, offsets = gather_rows(self.text_cu, texts, total)
        reads = _rows_to_read(parts, offsets.long())
        read = torch.cat(reads)
        early = read if self.savings.read_rows else None
        fused = self._fuse(fusion, text_TD[rows], offsets, index, early)
        if early is None:
            fused = fused[read]
        return list(fused.split([len(part) for part in reads]))

    def _fuse(
        self, fusion: FusionEncoder, x_TD: Tensor, offsets: Tensor, index: Tensor, read: Tensor | None
    ) -> Tensor:
        seen = self.seen
        if not isinstance(seen.views, Regions):
            assert seen.key_cu is not None
            sequences = seen.views[index]
            return fuse_spans(fusion, x_TD, offsets, seen.tokens, seen.key_cu, sequences, read)
        regions, tokens = seen.views.pick(index, offsets), seen.tokens
        if not self.savings.shared_keys:
            tokens = tokens[regions.image.long()]
            regions = replace(regions, image=torch.arange(len(index), dtype=torch.int32, device=index.device))
        return fusion(x_TD, tokens, regions, read)


def _rows_to_read(parts: list[Question], offsets: Tensor) -> list[Tensor]:
    read, first = [], 0
    for part in parts:
        starts = offsets[first : first + len(part.texts)]
        read.append(starts if part.rows is None else part.rows + offsets[first])
        first += len(part.texts)
    return read
