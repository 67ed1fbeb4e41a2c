"""Activation checkpointing: a layer keeps its input alone, and computes the rest again in the backward pass."""

from __future__ import annotations

from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint

from relvlm.encoders.fusion import FusionLayer
from relvlm.encoders.swin import SwinBlock
from relvlm.encoders.text import TextLayer
from relvlm.encoders.vit import Block as ViTBlock

LAYERS = (FusionLayer, SwinBlock, TextLayer, ViTBlock)


def recompute_layers(*encoders: nn.Module) -> None:
    """Lets every transformer layer recompute; random numbers (dropout) are the same both times."""
    for layer in transformer_layers(*encoders):
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)


def transformer_layers(*encoders: nn.Module) -> list[nn.Module]:
    return [layer for encoder in encoders for layer in encoder.modules() if isinstance(layer, LAYERS)]
