"""PyTorch's FlashAttention for packed sequences (`aten::_flash_attention_forward` with offsets), the strongest peer.

On a CPU there is none: its arguments are checked on tensors without data, and ours computes in its place, so that the
layouts are tested all the same.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from mrc_ways import Way, mean_tokens
from support.shapes import Batch, Shape
from torch import Tensor

from relvlm_kernels import varlen_attention


class FlashImages(Way):
    """Queries beside those of the same image, as one sequence; exact where every text sees its whole image."""

    name = "flash, images"

    def __init__(self, batch: Batch) -> None:
        super().__init__(batch)
        images, keys = batch.shape.images, batch.shape.keys
        queries = batch.lengths.view(images, -1).sum(1)
        self.cu_q, self.max_q = _offsets(queries), int(queries.max())
        self.cu_k, self.max_k = _offsets(torch.full_like(queries, keys)), keys

    @classmethod
    def refuses(cls, shape: Shape) -> str:
        return "knows no boxes" if shape.regions else ""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        k, v = k.flatten(0, 1), v.flatten(0, 1)
        return flash(q, k, v, self.cu_q, self.cu_k, self.max_q, self.max_k, self.dropout)


class FlashBoxes(Way):
    """Every text has a copy of the keys and values in its box, and their mean behind them. Gathering them is timed."""

    name = "flash, boxes gathered"

    def __init__(self, batch: Batch) -> None:
        super().__init__(batch)
        r, shape = batch.regions, batch.shape
        visible = torch.cat([batch.visible, r.mean[:, None]], 1)
        group, place = visible.nonzero().unbind(1)
        own = r.image.long()[group] * shape.keys + place
        self.key_rows = torch.where(place < shape.keys, own, shape.images * shape.keys + group)
        counts = visible.sum(1)
        self.cu_q, self.max_q = r.offsets, int(batch.lengths.max())
        self.cu_k, self.max_k = _offsets(counts), int(counts.max())

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        k, v = self._gathered(k), self._gathered(v)
        return flash(q, k, v, self.cu_q, self.cu_k, self.max_q, self.max_k, self.dropout)

    def _gathered(self, x_BSHD: Tensor) -> Tensor:
        rows = x_BSHD.flatten(0, 1)
        if self.batch.shape.mean:
            rows = torch.cat([rows, mean_tokens(x_BSHD, self.batch)])
        return rows.index_select(0, self.key_rows)


def flash(
    q: Tensor, k: Tensor, v: Tensor, cu_q: Tensor, cu_k: Tensor, max_q: int, max_k: int, dropout: float
) -> Tensor:
    """Attention within packed sequences, (T, H, D)."""
    call, how = torch.ops.aten._flash_attention_forward, (max_q, max_k, dropout, False, False)
    if q.device.type == "cpu":
        call(*(torch.empty_like(x, device="meta") for x in (q, k, v, cu_q, cu_k)), *how)
        return varlen_attention(q, k, v, cu_q, cu_k, dropout=dropout)
    return call(q, k, v, cu_q, cu_k, *how)[0]


def _offsets(lengths: Tensor) -> Tensor:
    return F.pad(lengths.cumsum(0), (1, 0)).int()
