"""BERT layers over packed sequences: the text-only half of the language model."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from relvlm.config.schema import TextConfig
from relvlm.encoders.feed_forward import FeedForward
from relvlm.encoders.packing import positions, read_offsets
from relvlm_kernels import add_norm, varlen_attention_kvpacked, varlen_attention_qkvpacked

LAYER_NORM_EPS = 1e-12  # BERT's


class SelfAttention(nn.Module):
    """Multi-head attention within each packed sequence."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x_TD: Tensor, cu: Tensor, read: Tensor | None = None) -> Tensor:
        """(T, D), or (n, D) of the increasing rows `read` alone."""
        dropout = self.dropout if self.training else 0.0
        if read is None:
            qkv = rearrange(self.qkv(x_TD), "t (n h d) -> t n h d", n=3, h=self.heads)
            out = varlen_attention_qkvpacked(qkv, cu, dropout=dropout)
        else:
            widths = [x_TD.shape[1], 2 * x_TD.shape[1]]  # split, whose gradient is one concatenation
            (of_q, of_kv), (q_bias, kv_bias) = self.qkv.weight.split(widths), self.qkv.bias.split(widths)
            q = rearrange(F.linear(x_TD[read], of_q, q_bias), "t (h d) -> t h d", h=self.heads)
            kv = rearrange(F.linear(x_TD, of_kv, kv_bias), "t (n h d) -> t n h d", n=2, h=self.heads)
            out = varlen_attention_kvpacked(q, kv, read_offsets(read, cu), cu, dropout=dropout)
        return self.out(rearrange(out, "t h d -> t (h d)"))


class Residual(nn.Module):
    """x + dropout(f(x)) with the norm after the sum (BERT) or before f; f may return the rows `read` alone."""

    def __init__(self, inner: nn.Module, config: TextConfig) -> None:
        super().__init__()
        self.inner = inner
        self.norm = nn.LayerNorm(config.width, eps=LAYER_NORM_EPS)
        self.dropout = nn.Dropout(config.dropout)
        self.pre = config.norm == "pre"

    def forward(self, x_TD: Tensor, *context: Any, read: Tensor | None = None) -> Tensor:
        inner = self.norm(x_TD) if self.pre else x_TD
        if read is not None:
            out_TD, x_TD = self.inner(inner, *context, read), x_TD[read]
        else:
            out_TD = self.inner(inner, *context)
        if self.pre:
            return x_TD + self.dropout(out_TD)
        norm, dropout = self.norm, self.dropout.p if self.training else 0.0
        return add_norm(out_TD, x_TD, norm.weight, norm.bias, norm.eps, dropout)


class TextLayer(nn.Module):
    """Self-attention, then feed-forward."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.attention = Residual(SelfAttention(config.width, config.heads, config.dropout), config)
        self.feed_forward = Residual(FeedForward(config.width, round(config.width * config.mlp_ratio)), config)

    def forward(self, x_TD: Tensor, cu: Tensor) -> Tensor:
        return self.feed_forward(self.attention(x_TD, cu))


class Embeddings(nn.Module):
    """Word + position + token type 0, LayerNorm, dropout."""

    def __init__(self, config: TextConfig, vocab_size: int) -> None:
        super().__init__()
        self.word = nn.Embedding(vocab_size, config.width)
        self.position = nn.Embedding(config.max_positions, config.width)
        self.token_type = nn.Embedding(2, config.width)
        self.norm = nn.LayerNorm(config.width, eps=LAYER_NORM_EPS)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, ids_T: Tensor, cu: Tensor) -> Tensor:
        place = self.position(positions(cu, len(ids_T)))
        return self.dropout(self.norm(self.word(ids_T) + place + self.token_type.weight[0]))


class TextEncoder(nn.Module):
    """Packed token ids (T,) int64 with offsets cu (n + 1,) -> (T, D)."""

    def __init__(self, config: TextConfig, vocab_size: int) -> None:
        super().__init__()
        self.embeddings = Embeddings(config, vocab_size)
        self.layers = nn.ModuleList(TextLayer(config) for _ in range(config.layers))
        pre = config.norm == "pre"
        self.norm = nn.LayerNorm(config.width, eps=LAYER_NORM_EPS) if pre else nn.Identity()
        init_bert(self, config.init_std)

    def forward(self, ids_T: Tensor, cu: Tensor) -> Tensor:
        x_TD = self.embeddings(ids_T, cu)
        for layer in self.layers:
            x_TD = layer(x_TD, cu)
        return self.norm(x_TD)


def init_bert(module: nn.Module, std: float) -> None:
    """BERT's initialisation: normal(0, std), zero biases. Its .02 suits width 768; narrow models want more."""
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Embedding):
            torch.nn.init.normal_(part.weight, std=std)
        if isinstance(part, nn.Linear) and part.bias is not None:
            torch.nn.init.zeros_(part.bias)
