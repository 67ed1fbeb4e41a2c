"""Vision transformers: DeiT's (ALBEF, X-VLM) and CLIP's, one [CLS] and then the patches, row by row.

Not transformers' own: regions need their last blocks run apart from the others, on packed tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from relvlm.config.vision import ViTConfig
from relvlm.encoders.feed_forward import FeedForward
from relvlm.encoders.position import position_resizer
from relvlm_kernels import attention_qkvpacked, varlen_attention_qkvpacked


class QuickGELU(nn.Module):
    """CLIP's approximation of GELU."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class QuickFeedForward(nn.Sequential):
    """Linear, QuickGELU, Linear."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__(nn.Linear(width, hidden), QuickGELU(), nn.Linear(hidden, width))


# LayerNorm's eps, feed-forward part, norm before the blocks (and no bias in the patch embedding)
KINDS: dict[str, tuple[float, Callable[[int, int], nn.Module], bool]] = {
    "vit": (1e-6, FeedForward, False),
    "clip_vit": (1e-5, QuickFeedForward, True),
}


class Attention(nn.Module):
    """Self-attention of (B, S, D), where `mask` (B, S) may hide keys, or of packed (T, D) within offsets `cu`."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None = None, cu: Tensor | None = None) -> Tensor:
        if cu is not None:
            qkv = rearrange(self.qkv(x), "t (n h d) -> t n h d", n=3, h=self.heads)
            return self.out(varlen_attention_qkvpacked(qkv, cu).flatten(1))
        qkv = rearrange(self.qkv(x), "b s (n h d) -> b s n h d", n=3, h=self.heads)
        if mask is None:
            return self.out(attention_qkvpacked(qkv).flatten(2))
        q, k, v = rearrange(qkv, "b s n h d -> n b h s d")
        out = F.scaled_dot_product_attention(q, k, v, mask[:, None, None, :])
        return self.out(rearrange(out, "b h s d -> b s (h d)"))


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        eps, feed_forward, _ = KINDS[config.kind]
        self.norm1 = nn.LayerNorm(config.width, eps=eps)
        self.attention = Attention(config.width, config.heads)
        self.norm2 = nn.LayerNorm(config.width, eps=eps)
        self.mlp = feed_forward(config.width, round(config.width * config.mlp_ratio))
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, **where: Any) -> Tensor:
        x = x + self.dropout(self.attention(self.norm1(x), **where))
        return x + self.dropout(self.mlp(self.norm2(x)))


class ViT(nn.Module):
    """pixels (B, 3, H, W) -> (B, 1 + N, D); `early` and then `late` do the same in two parts."""

    def __init__(self, config: ViTConfig, image_size: int) -> None:
        super().__init__()
        eps, _, pre_norm = KINDS[config.kind]
        width, patch = config.width, config.patch_size
        self.late_blocks, self.side = config.late_blocks, image_size // patch
        self.patch_embedding = nn.Conv2d(3, width, patch, stride=patch, bias=not pre_norm)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(torch.zeros(1, 1 + self.side**2, width))
        self.dropout = nn.Dropout(config.dropout)
        self.pre_norm = nn.LayerNorm(width, eps=eps) if pre_norm else nn.Identity()
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(width, eps=eps)
        self._initialise(config)

    def forward(self, pixels_BCHW: Tensor, kept_BK: Tensor | None = None) -> Tensor:
        return self.late(self.early(pixels_BCHW, kept_BK))

    def early(self, pixels_BCHW: Tensor, kept_BK: Tensor | None = None) -> Tensor:
        """Tokens (B, 1 + N, D) before the last `late_blocks` blocks.

        Of each image's patches `kept_BK` alone (int64), (B, 1 + K, D), if given.
        """
        square = self.patch_embedding(pixels_BCHW)
        position = self._positions(square.shape[-1])
        patches = square.flatten(2).transpose(1, 2) + position[:, 1:]
        if kept_BK is not None:
            patches = patches.gather(1, kept_BK[:, :, None].expand(-1, -1, patches.shape[2]))
        first = (self.class_token + position[:, :1]).expand(len(patches), -1, -1)
        x = self.pre_norm(self.dropout(torch.cat([first, patches], dim=1)))
        for block in self.blocks[: -self.late_blocks]:
            x = block(x)
        return x

    def _positions(self, side: int) -> Tensor:
        """The table (1, 1 + N, D); in training, of smaller images the table resized (config: low_resolution)."""
        if side == self.side or not self.training:
            return self.position
        resized = position_resizer(self.side, side, self.position.device) @ self.position.float()
        return resized.to(self.position.dtype)

    def late(self, x: Tensor, mask: Tensor | None = None, cu: Tensor | None = None) -> Tensor:
        """The last blocks and norm: of (B, S, D) with hidden keys, or of the visible tokens alone, packed (T, D).

        Both give the visible tokens the same values; no other token is read (X-VLM, `local_attn_depth`).
        """
        for block in self.blocks[-self.late_blocks :]:
            x = block(x, mask=mask, cu=cu)
        return self.norm(x)

    def _initialise(self, config: ViTConfig) -> None:
        for part in self.modules():
            if isinstance(part, nn.Linear | nn.Conv2d):
                nn.init.trunc_normal_(part.weight, std=config.init_std)
                if part.bias is not None:
                    nn.init.zeros_(part.bias)
        nn.init.trunc_normal_(self.class_token, std=config.init_std)
        nn.init.trunc_normal_(self.position, std=config.position_std)
