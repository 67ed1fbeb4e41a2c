"""Vision encoders from transformers, behind one shape: pixels -> P prefix tokens, then N patches, row-major."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import SwinConfig, SwinModel, ViTConfig, ViTModel

from relvlm.config import VisionConfig
from relvlm.errors import UserError


class VisionEncoder(nn.Module):
    """pixels (B, 3, H, W) -> (B, 1 + N, width); the first token is ViT's [CLS], or the mean of Swin's patches."""

    prefix = 1

    def __init__(self, config: VisionConfig, image_size: int) -> None:
        super().__init__()
        self.kind = config.kind
        build = {"vit": _vit, "swin": _swin}[config.kind]
        self.backbone, self.width, side = build(config, image_size)
        self.grid = (side, side)

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        pixels_BCHW = pixels_BCHW.to(next(self.backbone.parameters()).dtype)  # ViTModel casts, SwinModel not
        tokens_BSD = self.backbone(pixels_BCHW).last_hidden_state
        if self.kind == "swin":
            tokens_BSD = torch.cat([tokens_BSD.mean(1, keepdim=True), tokens_BSD], dim=1)
        return tokens_BSD


def _vit(config: VisionConfig, image_size: int) -> tuple[nn.Module, int, int]:
    vit = ViTConfig(
        hidden_size=config.width,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        intermediate_size=round(config.width * config.mlp_ratio),
        image_size=image_size,
        patch_size=config.patch_size,
        hidden_dropout_prob=config.dropout,
        layer_norm_eps=1e-6,
        initializer_range=config.init_std,
    )
    model = ViTModel(vit, add_pooling_layer=False)
    nn.init.trunc_normal_(model.embeddings.position_embeddings, std=config.position_std)
    return model, config.width, image_size // config.patch_size


def _swin(config: VisionConfig, image_size: int) -> tuple[nn.Module, int, int]:
    stages = len(config.depths)
    stride = config.patch_size * 2 ** (stages - 1)
    if image_size % stride:
        raise UserError(f"model.image_size: {image_size} is no multiple of {stride}, the stride of this Swin")
    swin = SwinConfig(
        image_size=image_size,
        patch_size=config.patch_size,
        embed_dim=config.width,
        depths=config.depths,
        num_heads=[config.heads * 2**stage for stage in range(stages)],
        window_size=config.window,
        mlp_ratio=config.mlp_ratio,
        drop_path_rate=config.drop_path,
        initializer_range=config.init_std,
        hidden_dropout_prob=config.dropout,
    )
    return SwinModel(swin, add_pooling_layer=False), config.width * 2 ** (stages - 1), image_size // stride
