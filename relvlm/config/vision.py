"""The vision encoders that can be configured; `kind` says which. Fields as in relvlm/config/schema.py."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal


@dataclass(frozen=True)
class ViTConfig:
    """Vision transformer: DeiT's (`vit`: ALBEF, X-VLM) or CLIP's."""

    kind: Annotated[Literal["vit", "clip_vit"], "a vision transformer, DeiT's or CLIP's"] = "vit"
    width: Annotated[int, "channels of a token"] = 768
    layers: Annotated[int, "transformer layers"] = 12
    heads: Annotated[int, "attention heads"] = 12
    patch_size: Annotated[int, "pixels of a patch's side"] = 16
    mlp_ratio: Annotated[float, "hidden channels of the feed-forward part, over width"] = 4.0
    dropout: Annotated[float, "of embeddings and of each branch's output"] = 0.0
    init_std: Annotated[float, "deviation of new weights"] = 0.02
    position_std: Annotated[float, "deviation of new position embeddings"] = 0.02
    patch_keep: Annotated[
        float,
        "not exact below 1: the share of patches that training keeps of images that every text sees whole (captions, "
        "vsg), drawn anew each step, and apart for a momentum teacher (FLIP, Li et al., 2023)",
    ] = 1.0
    late_blocks: Annotated[int, "the last blocks, in which `region_mask: late_vision` masks regions"] = 4

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

    kind: Annotated[Literal["swin"], "a Swin transformer"] = "swin"
    width: Annotated[int, "channels of the first stage"] = 128
    depths: Annotated[list[int], "blocks of each stage"] = field(default_factory=lambda: [2, 2, 18, 2])
    heads: Annotated[list[int], "attention heads of each stage"] = field(default_factory=lambda: [4, 8, 16, 32])
    window: Annotated[int, "patches of a window's side"] = 7
    patch_size: Annotated[int, "pixels of a first stage's patch's side"] = 4
    mlp_ratio: Annotated[float, "hidden channels of the feed-forward part, over those of the stage"] = 4.0
    drop_path: Annotated[float, "share of samples that the last block leaves out, less in the others"] = 0.0
    dropout: Annotated[float, "of embeddings and of each branch's output"] = 0.0
    init_std: Annotated[float, "deviation of new weights"] = 0.02

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
