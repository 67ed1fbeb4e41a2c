"""What model an official checkpoint is of: sizes from its tensors, the rest from the official configuration."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from relvlm.config.schema import FusionConfig, ModelConfig, MomentumConfig, TextConfig
from relvlm.config.vision import SwinConfig, VisionConfig, ViTConfig
from relvlm.convert.links import Tensors
from relvlm.convert.names import Family
from relvlm.errors import UserError

HEAD_WIDTH = 64  # of every base model
EPS = {"vit": 1e-6, "clip_vit": 1e-5, "swin": 1e-5}
MOMENTUM = ("visual_encoder_m.", "text_encoder_m.", "vision_proj_m.", "text_proj_m.", "image_queue", "text_queue")
DROP_PATH = 0.1  # X-VLM's Swin in pretraining


def describe(tensors: Tensors, official: Mapping[str, Any], family: Family) -> ModelConfig:
    """The model of official `tensors`.

    `official` is their configuration: of the published YAML (with `bert_config` and `vision_config` as dictionaries,
    if at all) or with sections `vision` and `text`. What it leaves out is as in the published base models.
    """
    vision_section = _section(official, "vision", "vision_config")
    text_section = _section(official, "text", "bert_config")
    prefix = "visual_encoder." if family == "albef" else "vision_encoder."
    vision = {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}
    described = _vision(vision, vision_section, official)
    text, fusion = _text(tensors, text_section, described.kind if family == "xvlm" else "")
    size = vision_section.get("image_res") or official.get("image_res") or _image_size(vision, described)
    model = ModelConfig(
        image_size=_whole(size, "image_res"),
        embed_dim=_get(tensors, "vision_proj.weight").shape[0],
        temperature=_number(official.get("temp", 0.07), "temp"),
        vision=described,
        text=text,
        fusion=fusion,
        negatives="official",
        localisation=any(name.startswith("bbox_head.") for name in tensors),
        relations=False,
    )
    return _with_family(model, tensors, official, family)


def _with_family(model: ModelConfig, tensors: Tensors, official: Mapping[str, Any], family: Family) -> ModelConfig:
    if family == "xvlm":
        return replace(model, itm_head="mlp", itm_floor=1e-5, itc_gradient="own_rank")
    if not any(name.startswith(MOMENTUM) for name in tensors):
        return replace(model, itm_head="linear")
    momentum = MomentumConfig(
        enabled=True,
        decay=_number(official.get("momentum", 0.995), "momentum"),
        queue=_get(tensors, "image_queue").shape[1],
        alpha=_number(official.get("alpha", 0.4), "alpha"),
    )
    return replace(model, itm_head="linear", momentum=momentum)


def _vision(vision: Tensors, section: Mapping[str, Any], official: Mapping[str, Any]) -> VisionConfig:
    if "layers.0.blocks.0.norm1.weight" in vision:
        return _swin(vision, section)
    clip = "class_embedding" in vision
    kernel = _get(vision, "patch_embed.weight" if clip else "patch_embed.proj.weight")
    block = "encoder.layers.{}.mlp.fc1.weight" if clip else "blocks.{}.mlp.fc1.weight"
    layers, width = _count(vision, block), kernel.shape[0]
    heads = section.get("heads") or section.get("num_heads") or section.get("num_attention_heads")
    late = _whole(section.get("local_attn_depth", official.get("local_attn_depth", 4)), "local_attn_depth")
    if not late:
        raise UserError("official config: local_attn_depth: 0, X-VLM masks regions in one vision block at least")
    _check(section, "clip_vit" if clip else "vit", "quick_gelu" if clip else "gelu", "hidden_act")
    return ViTConfig(
        kind="clip_vit" if clip else "vit",
        width=width,
        layers=layers,
        heads=_whole(heads or width // HEAD_WIDTH, "vision.heads"),
        patch_size=kernel.shape[-1],
        mlp_ratio=_get(vision, block.format(0)).shape[0] / width,
        late_blocks=min(late, layers),
    )


def _swin(vision: Tensors, section: Mapping[str, Any]) -> SwinConfig:
    kernel = _get(vision, "patch_embed.proj.weight")
    stages = range(_count(vision, "layers.{}.blocks.0.norm1.weight"))
    tables = [_get(vision, f"layers.{i}.blocks.0.attn.relative_position_bias_table") for i in stages]
    _check(section, "swin", "gelu", "hidden_act")
    return SwinConfig(
        width=kernel.shape[0],
        depths=[_count(vision, f"layers.{stage}.blocks.{{}}.mlp.fc1.weight") for stage in stages],
        heads=[table.shape[1] for table in tables],
        patch_size=kernel.shape[-1],
        mlp_ratio=_get(vision, "layers.0.blocks.0.mlp.fc1.weight").shape[0] / kernel.shape[0],
        window=_whole(section.get("window_size") or (math.isqrt(len(tables[0])) + 1) // 2, "vision.window_size"),
        drop_path=DROP_PATH,
    )


def _text(tensors: Tensors, section: Mapping[str, Any], vision_kind: str) -> tuple[TextConfig, FusionConfig]:
    embeddings, layer = "text_encoder.bert.embeddings", "text_encoder.bert.encoder.layer"
    width = _get(tensors, f"{embeddings}.word_embeddings.weight").shape[1]
    layers = _count(tensors, f"{layer}.{{}}.output.dense.weight")
    fused = sum(f"{layer}.{i}.crossattention.output.dense.weight" in tensors for i in range(layers))
    heads = _whole(section.get("heads") or section.get("num_attention_heads") or width // HEAD_WIDTH, "text.heads")
    for key in ("act", "hidden_act"):
        if section.get(key, "gelu") != "gelu":
            raise UserError(f"official config: text.{key}: {section[key]!r}, this BERT has gelu")
    text = TextConfig(
        layers=layers - fused,
        heads=heads,
        width=width,
        mlp_ratio=_get(tensors, f"{layer}.0.intermediate.dense.weight").shape[0] / width,
        max_positions=_get(tensors, f"{embeddings}.position_embeddings.weight").shape[0],
        dropout=_number(section.get("hidden_dropout_prob", 0.1), "text.hidden_dropout_prob"),
    )
    late = vision_kind in ("vit", "clip_vit")
    return text, FusionConfig(fused, heads, "late_vision" if late else "cross_attention")


def _image_size(vision: Tensors, config: VisionConfig) -> int:
    """The size that the position table, or Swin's first mask of shifted windows, was made for."""
    if isinstance(config, ViTConfig):
        table = vision["pos_embed.weight"][None] if "pos_embed.weight" in vision else vision["pos_embed"]
        return math.isqrt(table.shape[1] - 1) * config.patch_size
    mask = vision.get("layers.0.blocks.1.attn_mask")
    if mask is None:
        raise UserError("official config: image_res: cannot be read off this Swin (name it)")
    return math.isqrt(len(mask)) * math.isqrt(mask.shape[-1]) * config.patch_size


def _check(section: Mapping[str, Any], kind: str, activation: str, key: str) -> None:
    """Our encoders have the official LayerNorm eps and activation built in."""
    if section.get(key, activation) != activation:
        raise UserError(f"official config: vision.{key}: {section[key]!r}, the {kind} has {activation}")
    if not math.isclose(_number(section.get("ln_eps", EPS[kind]), "vision.ln_eps"), EPS[kind]):
        raise UserError(f"official config: vision.ln_eps: {section['ln_eps']}, the {kind} has {EPS[kind]}")


def _section(official: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    """The first of the sections that is there; the published YAML has file names in their place."""
    return next((official[name] for name in names if isinstance(official.get(name), Mapping)), {})


def _number(value: Any, key: str) -> float:
    """A number, also as text: to YAML 1.1 the `1e-06` that JSON writes is no number."""
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise UserError(f"official config: {key}: expected a number, found {value!r}")
    return number


def _whole(value: Any, key: str) -> int:
    number = _number(value, key)
    if number != int(number) or number < 0:
        raise UserError(f"official config: {key}: expected a whole number, found {value!r}")
    return int(number)


def _count(tensors: Tensors, pattern: str) -> int:
    count = 0
    while pattern.format(count) in tensors:
        count += 1
    return count


def _get(tensors: Tensors, name: str) -> Tensor:
    if name not in tensors:
        raise UserError(f"no tensor {name}: not a checkpoint of this family, or damaged")
    return tensors[name]
