"""Swin transformer: attention within windows that are shifted in every second block (Liu et al., 2021).

Not transformers' own: that one keeps the bias table of the full window where a stage is smaller than a window.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from relvlm.config.vision import SwinConfig
from relvlm.encoders.feed_forward import FeedForward
from relvlm_kernels import window_attention

PATCH_SHIFTED = -100.0  # added to scores between parts of a shifted window that are no neighbours
EPS = 1e-5


class WindowAttention(nn.Module):
    """Self-attention within windows (..., W, N, D) of N = side * side tokens; `mask` (W, N, N) is added."""

    def __init__(self, width: int, heads: int, side: int) -> None:
        super().__init__()
        self.heads, self.side = heads, side
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.relative_position_bias = nn.Parameter(torch.zeros((2 * side - 1) ** 2, heads))
        self.register_buffer("index", relative_position_index(side), persistent=False)

    index: Tensor

    def fill_buffers(self) -> None:
        """Anew what no file holds, where a loader has allocated it without values."""
        self.index.copy_(relative_position_index(self.side))

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, -1)).flatten(0, -5)
        bias_HNN = self.relative_position_bias[self.index].permute(2, 0, 1)
        return self.out(window_attention(qkv, bias_HNN, mask).flatten(-2)).view(x.shape)


class SwinBlock(nn.Module):
    """Window attention and MLP of a map (B, R, C, D) of `resolution` squared."""

    def __init__(
        self, config: SwinConfig, width: int, heads: int, resolution: int, shifted: bool, drop_path: float
    ) -> None:
        super().__init__()
        self.resolution = resolution
        self.side = min(config.window, resolution)  # a map no larger than a window is one window, unshifted
        self.shift = self.side // 2 if shifted and resolution > self.side else 0
        hidden = round(width * config.mlp_ratio)
        self.norm1 = nn.LayerNorm(width, eps=EPS)
        self.attention = WindowAttention(width, heads, self.side)
        self.norm2 = nn.LayerNorm(width, eps=EPS)
        self.mlp = FeedForward(width, hidden)
        self.dropout, self.drop_path = nn.Dropout(config.dropout), drop_path
        mask = shift_mask(resolution, self.side, self.shift) if self.shift else None
        self.register_buffer("mask", mask, persistent=False)

    mask: Tensor | None

    def fill_buffers(self) -> None:
        """As WindowAttention's."""
        if self.mask is not None:
            self.mask.copy_(shift_mask(self.resolution, self.side, self.shift))

    def forward(self, x_BRCD: Tensor, drop_path: float) -> Tensor:
        """`drop_path` is the block's own; torch.compile would take an attribute for a constant, and each block anew."""
        x_BRCD = x_BRCD + self._drop(self._attend(self.norm1(x_BRCD)), drop_path)
        return x_BRCD + self._drop(self.mlp(self.norm2(x_BRCD)), drop_path)

    def _attend(self, x_BRCD: Tensor) -> Tensor:
        shift, rows = (self.shift, self.shift), x_BRCD.shape[1] // self.side
        rolled = x_BRCD.roll((-shift[0], -shift[1]), (1, 2)) if self.shift else x_BRCD
        windows = windows_of(rolled, self.side)
        out = self.attention(windows, self.mask).unflatten(1, (rows, -1)).unflatten(3, (self.side, -1))
        out = out.transpose(2, 3).flatten(3, 4).flatten(1, 2)
        return out.roll(shift, (1, 2)) if self.shift else out

    def _drop(self, branch: Tensor, drop_path: float) -> Tensor:
        """Dropout, and now and then a sample without this branch (stochastic depth)."""
        branch = self.dropout(branch)
        if not (self.training and drop_path):
            return branch
        kept = torch.rand(len(branch), 1, 1, 1, device=branch.device) >= drop_path
        return branch * kept.to(branch.dtype) / (1 - drop_path)


class PatchMerging(nn.Module):
    """(B, R, C, D) -> (B, R/2, C/2, 2 D): two by two neighbours become one."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * width, eps=EPS)
        self.reduction = nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        neighbours = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        return self.reduction(self.norm(torch.cat(neighbours, dim=-1)))


class Swin(nn.Module):
    """pixels (B, 3, H, W) -> (B, N, D), the patches of the last stage row by row."""

    def __init__(self, config: SwinConfig, image_size: int) -> None:
        super().__init__()
        patch, width, resolution = config.patch_size, config.width, image_size // config.patch_size
        self.patch_embedding = nn.Conv2d(3, width, patch, stride=patch)
        self.patch_norm = nn.LayerNorm(width, eps=EPS)
        self.dropout = nn.Dropout(config.dropout)
        total = sum(config.depths)
        drop_paths = iter(config.drop_path * i / max(total - 1, 1) for i in range(total))
        self.stages, self.merges = nn.ModuleList(), nn.ModuleList()
        for stage, (depth, heads) in enumerate(zip(config.depths, config.heads, strict=True)):
            wide, side = width * 2**stage, resolution // 2**stage
            blocks = [SwinBlock(config, wide, heads, side, i % 2 == 1, next(drop_paths)) for i in range(depth)]
            self.stages.append(nn.Sequential(*blocks))
            self.merges.append(PatchMerging(wide) if stage + 1 < len(config.depths) else nn.Identity())
        self.norm = nn.LayerNorm(config.output_width, eps=EPS)
        self._initialise(config.init_std)

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        x = self.dropout(self.patch_norm(self.patch_embedding(pixels_BCHW).permute(0, 2, 3, 1)))
        for stage, merge in zip(self.stages, self.merges, strict=True):
            for block in stage.children():
                x = block(x, block.drop_path)
            x = merge(x)
        return self.norm(x.flatten(1, 2))

    def _initialise(self, std: float) -> None:
        for part in self.modules():
            if isinstance(part, nn.Linear | nn.Conv2d):
                nn.init.trunc_normal_(part.weight, std=std)
                if part.bias is not None:
                    nn.init.zeros_(part.bias)
            elif isinstance(part, WindowAttention):
                nn.init.trunc_normal_(part.relative_position_bias, std=std)


def windows_of(x_BRCD: Tensor, side: int) -> Tensor:
    """(B, R, C, D) -> (B, W, side * side, D), windows and their tokens row by row."""
    x = x_BRCD.unflatten(2, (-1, side)).unflatten(1, (-1, side)).transpose(2, 3)
    return x.flatten(3, 4).flatten(1, 2)


def relative_position_index(side: int) -> Tensor:
    """(N, N) int64: the row of the bias table for each pair of a window's tokens."""
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    y, x = y.flatten(), x.flatten()
    return (y[:, None] - y + side - 1) * (2 * side - 1) + (x[:, None] - x + side - 1)


def shift_mask(resolution: int, side: int, shift: int) -> Tensor:
    """(W, N, N): 0 between tokens that were neighbours before the shift, `PATCH_SHIFTED` between others."""
    place = torch.arange(resolution)
    part = (place >= resolution - side).long() + (place >= resolution - shift).long()
    parts_WN = windows_of((3 * part[:, None] + part)[None, :, :, None].float(), side)[0, :, :, 0]
    return torch.where(parts_WN[:, None] == parts_WN[:, :, None], 0.0, PATCH_SHIFTED)
