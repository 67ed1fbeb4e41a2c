"""The packed fusion encoder: every text that looks at an image, of every objective, in one pass.

Keys and values are projected once per image and layer, whatever number of groups look at it.
"""

from __future__ import annotations

from dataclasses import replace

from einops import rearrange
from torch import Tensor, nn

from relvlm.config.schema import FusionConfig, TextConfig
from relvlm.encoders.feed_forward import FeedForward
from relvlm.encoders.packing import read_offsets
from relvlm.encoders.spans import Spans
from relvlm.encoders.text import LAYER_NORM_EPS, Residual, SelfAttention, init_bert
from relvlm_kernels import Regions, region_cross_attention, varlen_attention_kvpacked


class CrossAttention(nn.Module):
    """Text tokens attend to the box of their group's image (B, S, Dv), or to a sequence of packed tokens (K, Dv)."""

    def __init__(self, width: int, image_width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.query = nn.Linear(width, width)
        self.kv = nn.Linear(image_width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x_TD: Tensor, image: Tensor, seen: Regions | Spans) -> Tensor:
        q = rearrange(self.query(x_TD), "t (h d) -> t h d", h=self.heads)
        dropout = self.dropout if self.training else 0.0
        if isinstance(seen, Regions):
            out = region_cross_attention(q, image, self.kv.weight, self.kv.bias, seen, dropout=dropout)
        else:
            kv = rearrange(self.kv(image), "t (n h d) -> t n h d", n=2, h=self.heads)
            out = varlen_attention_kvpacked(q, kv, seen.query_cu, seen.key_cu, dropout=dropout)
        return self.out(rearrange(out, "t h d -> t (h d)"))


class FusionLayer(nn.Module):
    """Self-attention, cross-attention, feed-forward; with `read`, of those rows alone (all rows stay keys)."""

    def __init__(self, config: FusionConfig, text: TextConfig, image_width: int) -> None:
        super().__init__()
        self.attention = Residual(SelfAttention(text.width, config.heads, text.dropout), text)
        attend = CrossAttention(text.width, image_width, config.heads, text.dropout)
        self.cross_attention = Residual(attend, text)
        self.feed_forward = Residual(FeedForward(text.width, round(text.width * text.mlp_ratio)), text)

    def forward(self, x_TD: Tensor, image: Tensor, seen: Regions | Spans, read: Tensor | None = None) -> Tensor:
        x_TD = self.attention(x_TD, seen.offsets, read=read)
        if isinstance(seen, Spans) and read is not None:
            seen = seen.reading(read)
        elif read is not None:
            seen = replace(seen, offsets=read_offsets(read, seen.offsets))
        return self.feed_forward(self.cross_attention(x_TD, image, seen))


class FusionEncoder(nn.Module):
    """Packed text tokens (T, D) of G groups and image tokens, (B, P + N, Dv) or packed (K, Dv) -> (T, D).

    `read` (n,) int64, increasing: return those rows only; the last layer then computes nothing else of the others
    than keys and values.
    """

    def __init__(self, config: FusionConfig, text: TextConfig, image_width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(FusionLayer(config, text, image_width) for _ in range(config.layers))
        pre = text.norm == "pre"
        self.norm = nn.LayerNorm(text.width, eps=LAYER_NORM_EPS) if pre else nn.Identity()
        init_bert(self, text.init_std)

    def forward(self, x_TD: Tensor, image: Tensor, seen: Regions | Spans, read: Tensor | None = None) -> Tensor:
        *full, last = self.layers
        for layer in full:
            x_TD = layer(x_TD, image, seen)
        return self.norm(last(x_TD, image, seen, read))
