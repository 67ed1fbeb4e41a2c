"""Scoring as the public evaluation scripts do it, with modern attention (SDPA), on a relvlm model's own weights.

One pair at a time: the photo is opened and encoded again for each caption, the text is padded, and every fusion layer
projects the image's keys and values for the pair. Retrieval: encodings are there, the k candidates of an image are one
batch of padded texts, over k copies of its tokens. It is what `eval.py` measures against.

Legend: G pairs, L padded text length, S image tokens, H heads, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from relvlm.data.batches.transforms import eval_transform
from relvlm.data.pictures import decode
from relvlm.data.text import Tokenizer, pre_caption
from relvlm.encoders.fusion import CrossAttention
from relvlm.encoders.text import Residual, SelfAttention
from relvlm.model import RelVLM

MAX_WORDS = 40


class PublicWay:
    """Padded scoring with `length` tokens a text."""

    def __init__(self, model: RelVLM, tokenizer: Tokenizer, length: int) -> None:
        self.model, self.tokenizer, self.length = model, tokenizer, length
        self.device = next(model.parameters()).device
        self.transform = eval_transform(model.config.image_size)

    def probability(self, photo: Path, text: str) -> float:
        """softmax(ITM logits)[match] of one pair, from the file."""
        pixels = self.transform(decode(photo.read_bytes(), 10**9))
        tokens_GLD, mask_GL = self.texts([text])
        logits_G2 = self.match(tokens_GLD, mask_GL, self.model.encode_image(pixels[None].to(self.device)))
        return logits_G2.float().softmax(-1)[0, 1].item()

    def texts(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Text tokens (G, L, D) and their mask (G, L)."""
        ids = self.tokenizer.encode([pre_caption(text, MAX_WORDS) for text in texts], self.length, self.model.sep)
        padded = torch.tensor([x + [self.tokenizer.pad_id] * (self.length - len(x)) for x in ids])
        mask_GL = torch.tensor([[i < len(x) for i in range(self.length)] for x in ids], device=self.device)
        embeddings, text = self.model.text.embeddings, self.model.text
        place = embeddings.position(torch.arange(self.length, device=self.device))
        x_GLD = embeddings.word(padded.to(self.device)) + place + embeddings.token_type.weight[0]
        x_GLD = embeddings.norm(x_GLD)
        for layer in text.layers:
            x_GLD = _residual(layer.attention, x_GLD, _attend(mask_GL))
            x_GLD = _residual(layer.feed_forward, x_GLD, lambda inner, x: inner(x))
        return text.norm(x_GLD), mask_GL

    def match(self, x_GLD: Tensor, mask_GL: Tensor, image_GSD: Tensor) -> Tensor:
        """ITM logits (G, 2) of pairs of padded texts and their own copies of image tokens."""
        for layer in self.model.fusion.layers:
            x_GLD = _residual(layer.attention, x_GLD, _attend(mask_GL))
            x_GLD = _residual(layer.cross_attention, x_GLD, _look(image_GSD))
            x_GLD = _residual(layer.feed_forward, x_GLD, lambda inner, x: inner(x))
        return self.model.itm_head(self.model.fusion.norm(x_GLD)[:, 0])

    def rescore(self, x_GLD: Tensor, mask_GL: Tensor, image_SD: Tensor) -> Tensor:
        """Match logits (G,) of one image with its G candidates."""
        return self.match(x_GLD, mask_GL, image_SD.repeat(len(x_GLD), 1, 1))[:, 1]


def _residual(block: Residual, x: Tensor, apply: Callable) -> Tensor:
    x = x + apply(block.inner, block.norm(x) if block.pre else x)
    return x if block.pre else block.norm(x)


def _attend(mask_GL: Tensor) -> Callable:
    def apply(inner: SelfAttention, x_GLD: Tensor) -> Tensor:
        q, k, v = rearrange(inner.qkv(x_GLD), "g l (n h d) -> n g h l d", n=3, h=inner.heads).unbind(0)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask_GL[:, None, None])
        return inner.out(rearrange(out, "g h l d -> g l (h d)"))

    return apply


def _look(image_GSD: Tensor) -> Callable:
    def apply(inner: CrossAttention, x_GLD: Tensor) -> Tensor:
        q = rearrange(inner.query(x_GLD), "g l (h d) -> g h l d", h=inner.heads)
        k, v = rearrange(inner.kv(image_GSD), "g s (n h d) -> n g h s d", n=2, h=inner.heads).unbind(0)
        return inner.out(rearrange(F.scaled_dot_product_attention(q, k, v), "g h l d -> g l (h d)"))

    return apply
