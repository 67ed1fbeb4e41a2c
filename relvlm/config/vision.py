"""The vision encoders that can be configured; `kind` says which. Fields as in relvlm/config/schema.py."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from relvlm.config.ranges import BELOW_ONE, DEVIATION, NEVER, PART, Length, Range


@dataclass(frozen=True)
class ViTConfig:
    """Vision transformer: DeiT's (`vit`: ALBEF, X-VLM) or CLIP's."""

    kind: Annotated[Literal["vit", "clip_vit"], "a vision transformer, DeiT's or CLIP's", NEVER] = "vit"
    width: Annotated[int, "channels of a token", Range(1, 65_536), NEVER] = 768
    layers: Annotated[int, "transformer layers", Range(1, 1000), NEVER] = 12
    heads: Annotated[int, "attention heads", Range(1, 1024), NEVER] = 12
    patch_size: Annotated[int, "pixels of a patch's side", Range(1, 4096), NEVER] = 16
    mlp_ratio: Annotated[
        float, "hidden channels of the feed-forward part, over width", Range(0, 64, above=True), NEVER
    ] = 4.0
    dropout: Annotated[float, "of embeddings and of each branch's output", BELOW_ONE] = 0.0
    init_std: Annotated[float, "deviation of new weights", DEVIATION, NEVER] = 0.02
    position_std: Annotated[float, "deviation of new position embeddings", DEVIATION, NEVER] = 0.02
    patch_keep: Annotated[
        float,
        "not exact below 1: the share of patches that training keeps of images that every text sees whole (captions, "
        "vsg), drawn anew each step, and apart for a momentum teacher (FLIP, Li et al., 2023)",
        PART,
    ] = 1.0
    late_blocks: Annotated[
        int, "the last blocks, in which `region_mask: late_vision` masks regions", Range(0, 1000)
    ] = 4

    @property
    def output_width(self) -> int:
        """Channels of an image token."""
        return self.width

    @property
    def stride(self) -> int:
        """Pixels of an image token's side."""
        return self.patch_size

    def kept_patches(self, patches: int) -> int:
        """How many of an image's `patches` training keeps."""
        return max(1, round(self.patch_keep * patches))


@dataclass(frozen=True)
class SwinConfig:
    """Swin transformer (X-VLM); a stage has twice the channels of the one before, on a quarter of its patches."""

    kind: Annotated[Literal["swin"], "a Swin transformer", NEVER] = "swin"
    width: Annotated[int, "channels of the first stage", Range(1, 65_536), NEVER] = 128
    depths: Annotated[list[int], "blocks of each stage", Length(1, 10, Range(1, 1000)), NEVER] = field(
        default_factory=lambda: [2, 2, 18, 2]
    )
    heads: Annotated[list[int], "attention heads of each stage", Length(1, 10, Range(1, 1024)), NEVER] = field(
        default_factory=lambda: [4, 8, 16, 32]
    )
    window: Annotated[int, "patches of a window's side", Range(1, 4096), NEVER] = 7
    patch_size: Annotated[int, "pixels of a first stage's patch's side", Range(1, 4096), NEVER] = 4
    mlp_ratio: Annotated[
        float, "hidden channels of the feed-forward part, over those of the stage", Range(0, 64, above=True), NEVER
    ] = 4.0
    drop_path: Annotated[float, "share of samples that the last block leaves out, less in the others", BELOW_ONE] = 0.0
    dropout: Annotated[float, "of embeddings and of each branch's output", BELOW_ONE] = 0.0
    init_std: Annotated[float, "deviation of new weights", DEVIATION, NEVER] = 0.02

    @property
    def output_width(self) -> int:
        """Channels of an image token."""
        return self.width * 2 ** (len(self.depths) - 1)

    @property
    def stride(self) -> int:
        """Pixels of an image token's side."""
        return self.patch_size * 2 ** (len(self.depths) - 1)

    def kept_patches(self, patches: int) -> int:
        """All: a Swin's windows are of whole images."""
        return patches


VisionConfig = ViTConfig | SwinConfig
