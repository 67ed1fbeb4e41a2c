"""Names of the official models' tensors and of ours (ALBEF at b9727e4, X-VLM at cb4fff1)."""

from __future__ import annotations

from typing import Literal

import torch

from relvlm.config.schema import ModelConfig
from relvlm.config.vision import SwinConfig, VisionConfig, ViTConfig
from relvlm.convert.links import Link, cat, prefixed, same
from relvlm.encoders.swin import relative_position_index, shift_mask

Family = Literal["albef", "xvlm"]
TEACHER = "teacher."  # our teacher's tensors, kept beside the model's
TIED = "mlm_head.decoder.weight"  # ours too is the word embedding under another name


def official_links(config: ModelConfig, family: Family) -> list[Link]:
    """Every tensor of the official model of this size; without momentum or localisation, of one cut down likewise."""
    links = [Link("temperature", ("temp",), "scalar")]
    if family == "xvlm":
        links += _encoders(config, "vision_encoder.", "text_encoder.", "vision_proj", "text_proj")
        boxes = _mlp("box_head.layers", "bbox_head") if config.localisation else []
        return links + _mlp("itm_head.layers", "itm_head") + boxes
    if config.momentum.enabled:
        links += [Link(f"{TEACHER}{kind}_queue", (f"{kind}_queue",), "transposed") for kind in ("image", "text")]
        links += [Link(f"{TEACHER}pointer", ("queue_ptr",))]
    links += _encoders(config, "visual_encoder.", "text_encoder.", "vision_proj", "text_proj")
    links += same([("itm_head.layers.0", "itm_head")])
    if config.momentum.enabled:
        momentum = _encoders(config, "visual_encoder_m.", "text_encoder_m.", "vision_proj_m", "text_proj_m")
        links += prefixed(momentum, TEACHER, "")
    return links


def _encoders(config: ModelConfig, vision: str, text: str, vision_projection: str, text_projection: str) -> list[Link]:
    links = prefixed(vision_links(config.vision, config.image_size), "vision.backbone.", vision)
    positions = config.text.max_positions
    links += prefixed(bert_links(config.text.layers, config.fusion.layers, positions), "", text)
    return links + same([("image_projection", vision_projection), ("text_projection", text_projection)])


def _mlp(ours: str, theirs: str) -> list[Link]:
    return same((f"{ours}.{i}", f"{theirs}.{i}") for i in (0, 1, 3))


def vision_links(config: VisionConfig, image_size: int) -> list[Link]:
    """The vision encoder alone, ours without `vision.backbone.`."""
    if isinstance(config, SwinConfig):
        return _swin_links(config, image_size)
    if config.kind == "clip_vit":
        return _clip_links(config, image_size)
    links = [Link("class_token", ("cls_token",)), Link("position", ("pos_embed",))]
    links += same([("patch_embedding", "patch_embed.proj")])
    for i in range(config.layers):
        ours = same(
            [
                ("norm1", "norm1"), ("attention.qkv", "attn.qkv"), ("attention.out", "attn.proj"),
                ("norm2", "norm2"), ("mlp.0", "mlp.fc1"), ("mlp.2", "mlp.fc2"),
            ]
        )  # fmt: skip
        links += prefixed(ours, f"blocks.{i}.", f"blocks.{i}.")
    return links + same([("norm", "norm")])


def _clip_links(config: ViTConfig, image_size: int) -> list[Link]:
    tokens = 1 + (image_size // config.patch_size) ** 2
    links = [
        Link("class_token", ("class_embedding",), "token"),
        Link("", ("position_ids",), "derived", torch.arange(tokens)[None]),
        Link("patch_embedding.weight", ("patch_embed.weight",)),
        Link("position", ("pos_embed.weight",), "row"),
    ]
    return links + clip_block_links(config.layers)


def clip_block_links(layers: int) -> list[Link]:
    """What the official X-VLM and Hugging Face name alike in CLIP's vision transformer."""
    links = same([("pre_norm", "pre_layrnorm")])
    for i in range(layers):
        block = cat("attention.qkv", [f"self_attn.{x}_proj" for x in "qkv"])
        block += same(
            [
                ("attention.out", "self_attn.out_proj"), ("norm1", "layer_norm1"),
                ("mlp.0", "mlp.fc1"), ("mlp.2", "mlp.fc2"), ("norm2", "layer_norm2"),
            ]
        )  # fmt: skip
        links += prefixed(block, f"blocks.{i}.", f"encoder.layers.{i}.")
    return links + same([("norm", "post_layernorm")])


def _swin_links(config: SwinConfig, image_size: int) -> list[Link]:
    links = same([("patch_embedding", "patch_embed.proj"), ("patch_norm", "patch_embed.norm")])
    for stage, depth in enumerate(config.depths):
        resolution = image_size // config.patch_size // 2**stage
        side = min(config.window, resolution)
        index = relative_position_index(side)
        for i in range(depth):
            block = [
                Link("attention.relative_position_bias", ("attn.relative_position_bias_table",)),
                Link("", ("attn.relative_position_index",), "derived", index),
            ]
            if i % 2 == 1 and resolution > side:
                mask = shift_mask(resolution, side, side // 2)
                block.append(Link("", ("attn_mask",), "derived", mask))
            block += same(
                [
                    ("norm1", "norm1"), ("attention.qkv", "attn.qkv"), ("attention.out", "attn.proj"),
                    ("norm2", "norm2"), ("mlp.0", "mlp.fc1"), ("mlp.2", "mlp.fc2"),
                ]
            )  # fmt: skip
            links += prefixed(block, f"stages.{stage}.{i}.", f"layers.{stage}.blocks.{i}.")
        if stage + 1 < len(config.depths):
            ours, theirs = f"merges.{stage}", f"layers.{stage}.downsample"
            links += [Link(f"{ours}.reduction.weight", (f"{theirs}.reduction.weight",))]
            links += same([(f"{ours}.norm", f"{theirs}.norm")])
    return links + same([("norm", "norm")])


def bert_links(text_layers: int, fusion_layers: int, positions: int) -> list[Link]:
    """The BERT that is split into text and fusion encoder, as BertForMaskedLM names it."""
    embeddings = "bert.embeddings"
    links = [
        Link("", (f"{embeddings}.position_ids",), "derived", torch.arange(positions)[None]),
        Link(
            "text.embeddings.word.weight",
            (f"{embeddings}.word_embeddings.weight", "cls.predictions.decoder.weight"), "tied",
        ),
        Link("text.embeddings.position.weight", (f"{embeddings}.position_embeddings.weight",)),
        Link("text.embeddings.token_type.weight", (f"{embeddings}.token_type_embeddings.weight",)),
        *same([("text.embeddings.norm", f"{embeddings}.LayerNorm")]),
    ]  # fmt: skip
    for i in range(text_layers + fusion_layers):
        fused = i >= text_layers
        layer = _bert_layer() + (_cross_attention() if fused else [])
        ours = f"fusion.layers.{i - text_layers}." if fused else f"text.layers.{i}."
        links += prefixed(layer, ours, f"bert.encoder.layer.{i}.")
    links.append(Link("mlm_head.decoder.bias", ("cls.predictions.bias", "cls.predictions.decoder.bias"), "tied"))
    head = [("mlm_head.transform", "transform.dense"), ("mlm_head.norm", "transform.LayerNorm")]
    return links + same((ours, f"cls.predictions.{theirs}") for ours, theirs in head)


def _bert_layer() -> list[Link]:
    qkv = [f"attention.self.{part}" for part in ("query", "key", "value")]
    return cat("attention.inner.qkv", qkv) + same(
        [
            ("attention.inner.out", "attention.output.dense"),
            ("attention.norm", "attention.output.LayerNorm"),
            ("feed_forward.inner.0", "intermediate.dense"),
            ("feed_forward.inner.2", "output.dense"),
            ("feed_forward.norm", "output.LayerNorm"),
        ]
    )


def _cross_attention() -> list[Link]:
    ours, theirs = "cross_attention.inner", "crossattention"
    return cat(f"{ours}.kv", [f"{theirs}.self.key", f"{theirs}.self.value"]) + same(
        [
            (f"{ours}.query", f"{theirs}.self.query"),
            (f"{ours}.out", f"{theirs}.output.dense"),
            ("cross_attention.norm", f"{theirs}.output.LayerNorm"),
        ]
    )
