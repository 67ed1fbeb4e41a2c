"""FLOPs (2 a multiply-add) that scoring must spend, our way and the public way: what `eval.py` is held against."""

from __future__ import annotations

from collections.abc import Sequence

from relvlm.config import ModelConfig
from relvlm.model import RelVLM


def flop_limits(
    model: RelVLM,
    lengths: Sequence[int],
    padded: int,
    photos: int,
    text_of_pair: Sequence[int],
    retrieval: bool,
) -> dict[str, float]:
    """FLOPs of the public way over ours, with (`cold`) and without (`warm`) encoding the images.

    `lengths`: tokens of each text. `retrieval`: both sides have all encodings.
    """
    config, pairs = model.config, len(text_of_pair)
    tokens = model.vision.grid[0] * model.vision.grid[1] + 1
    image = vision_flops(config, tokens)
    keys = config.fusion.layers * 4 * tokens * model.vision.width * config.text.width
    public = pairs * (keys + fusion_flops(config, tokens, padded, padded))
    ours = photos * keys + sum(fusion_flops(config, tokens, lengths[t], 1) for t in text_of_pair)
    if retrieval:
        return {"cold": public / ours}
    public += pairs * (image + text_flops(config, padded))
    ours += sum(text_flops(config, lengths[t]) for t in set(text_of_pair))
    return {"cold": public / (ours + photos * image), "warm": public / ours}


def vision_flops(config: ModelConfig, tokens: int) -> float:
    """Of one image through the ViT."""
    width, patch = config.vision.width, 3 * config.vision.patch_size**2
    layer = (8 + 4 * config.vision.mlp_ratio) * tokens * width**2 + 4 * tokens**2 * width
    return config.vision.layers * layer + 2 * (tokens - 1) * patch * width


def text_flops(config: ModelConfig, length: int) -> float:
    """Of one text through the text encoder."""
    return config.text.layers * _layer_flops(config, length, length)


def fusion_flops(config: ModelConfig, tokens: int, length: int, read: int) -> float:
    """Of one pair through the fusion encoder, without the image's keys and values.

    The last layer computes `read` rows.
    """
    width = config.text.width

    def layer(rows: int) -> float:
        return _layer_flops(config, length, rows) + 4 * rows * width**2 + 4 * rows * tokens * width

    return (config.fusion.layers - 1) * layer(length) + layer(read)


def _layer_flops(config: ModelConfig, length: int, rows: int) -> float:
    """Self-attention and feed-forward for `rows` of `length` tokens; all tokens are keys."""
    width = config.text.width
    projections = 4 * length * width**2 + 4 * rows * width**2
    return projections + 4 * rows * length * width + 4 * rows * width**2 * config.text.mlp_ratio
