"""Pretrained backbones on disk as our encoders: BERT, ViT, DeiT, Swin and CLIP's ViT.

Names are Hugging Face's; a vision file with the names of its authors (DeiT's, Swin's .pth) will do too.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from relvlm.config.schema import ModelConfig
from relvlm.config.vision import SwinConfig, ViTConfig
from relvlm.convert.files import state_dict_of
from relvlm.convert.links import Link, Tensors, cat, check_names, prefixed, same
from relvlm.convert.names import bert_links, clip_block_links, vision_links
from relvlm.encoders.position import resize_bias_table, resize_positions
from relvlm.errors import UserError

FILES = ("model.safetensors", "pytorch_model.bin")
PREFIXES = ("vit.", "deit.", "swin.", "vision_model.")
# Heads, and what follows from sizes: no part of an encoder of ours
UNUSED_FIRST = (
    "pooler", "classifier", "cls_classifier", "distillation_classifier", "head",
    "text_model", "logit_scale", "visual_projection", "text_projection",
)  # fmt: skip
UNUSED_LAST = ("position_ids", "relative_position_index", "attn_mask")
BACKBONE = "vision.backbone."


@dataclass(frozen=True)
class Backbone:
    """Tensors of a file: ours by name, and theirs that we have no use for."""

    file: Path
    ours: dict[str, Tensor]
    unused: list[str]


def read_vision(path: Path, config: ModelConfig) -> Backbone:
    """The vision encoder in a folder or file; UserError where it is not of the kind or size in `config`."""
    file, tensors = _read(path)
    heads = {} if isinstance(config.vision, SwinConfig) else {"model.vision.heads": config.vision.heads}
    _check_beside(file, heads, "quick_gelu" if config.vision.kind == "clip_vit" else "gelu")
    tensors = {_without_prefix(name): tensor for name, tensor in tensors.items()}
    theirs, unused = _sort_out(tensors)
    links = [link for link in _vision_links(config, theirs) if link.value is None]
    return Backbone(file, prefix_names(_ours(links, theirs, file), BACKBONE), unused)


def read_bert(path: Path, config: ModelConfig) -> Backbone:
    """BERT in a folder or file, split into text and fusion encoder; without cross-attention, which it has not."""
    if config.text.norm != "post":
        raise UserError(f"model.text.norm: {config.text.norm}: BERT's layers need `post` (or `init.text: random`)")
    file, tensors = _read(path)
    _check_beside(file, {"model.text.heads": config.text.heads, "model.fusion.heads": config.fusion.heads}, "gelu")
    tensors = {k.replace(".gamma", ".weight").replace(".beta", ".bias"): t for k, t in tensors.items()}
    if "embeddings.word_embeddings.weight" in tensors:  # of a BertModel
        tensors = {f"bert.{name}": tensor for name, tensor in tensors.items()}
    ignored = {k for k in tensors if k.startswith(("bert.pooler.", "cls.seq_relationship."))}
    ignored |= {k for k in tensors if k.endswith("position_ids")}
    theirs = {k: t for k, t in tensors.items() if k not in ignored}
    links = bert_links(config.text.layers, config.fusion.layers, config.text.max_positions)
    headless = not any(name.startswith("cls.") for name in theirs)
    kept = []
    for link in links:
        new = any("crossattention" in name for name in link.theirs)
        if link.value is not None or new or (headless and link.ours.startswith("mlm_head.")):
            continue
        present = tuple(name for name in link.theirs if name in theirs)  # tied ones are often saved once
        kept.append(Link(link.ours, present if link.how == "tied" and present else link.theirs, link.how))
    return Backbone(file, _ours(kept, theirs, file), sorted(ignored))


def prefix_names(tensors: Tensors, prefix: str) -> dict[str, Tensor]:
    """The tensors with their names prefixed."""
    return {prefix + name: tensor for name, tensor in tensors.items()}


def fit(name: str, tensor: Tensor, wanted: Tensor, origin: str) -> Tensor:
    """The tensor in the shape of `wanted`: position tables are resized or cut; UserError for all others."""
    if tensor.shape == wanted.shape:
        return tensor
    last = name.rsplit(".", 1)[-1]
    if last == "position" and tensor.dim() == 3 and tensor.shape[2] == wanted.shape[2]:
        return resize_positions(tensor, math.isqrt(wanted.shape[1] - 1))
    if last == "relative_position_bias" and tensor.shape[1] == wanted.shape[1]:
        return resize_bias_table(tensor, (math.isqrt(len(wanted)) + 1) // 2)
    if name == "text.embeddings.position.weight" and len(tensor) > len(wanted):
        return tensor[: len(wanted)].clone()
    raise UserError(f"{origin}: {name} (ours): is {tuple(tensor.shape)}, the config's model has {tuple(wanted.shape)}")


def _ours(links: list[Link], theirs: Tensors, file: Path) -> dict[str, Tensor]:
    check_names({name for link in links for name in link.theirs}, set(theirs), str(file))
    return {link.ours: link.to_ours([theirs[name] for name in link.theirs]) for link in links}


def _read(path: Path) -> tuple[Path, dict[str, Tensor]]:
    file = path
    if path.is_dir():
        file = next((path / name for name in FILES if (path / name).is_file()), path / FILES[0])
    return file, dict(state_dict_of(file)[0])


def _check_beside(file: Path, heads: Mapping[str, int], activation: str) -> None:
    """UserError where the weights' config.json, if any, names what no shape tells otherwise: heads, the activation."""
    path = file.with_name("config.json")
    if not path.is_file():
        return
    try:
        theirs = json.loads(path.read_bytes())
        theirs = theirs.get("vision_config", theirs)  # of a whole CLIP
        found, theirs_act = theirs.get("num_attention_heads"), theirs.get("hidden_act", activation)
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"{path}: not readable: {error}") from error
    for field, own in heads.items():
        if found not in (None, own):
            raise UserError(f"{path}: num_attention_heads: {found}, the config has {field}={own} (set it to {found})")
    if theirs_act != activation:
        raise UserError(f"{path}: hidden_act: {theirs_act!r}, the encoder of this kind has {activation}")


def _without_prefix(name: str) -> str:
    prefix = next((p for p in PREFIXES if name.startswith(p)), "")
    return name.removeprefix(prefix)


def _sort_out(tensors: Tensors) -> tuple[dict[str, Tensor], list[str]]:
    unused = [n for n in tensors if n.split(".")[0] in UNUSED_FIRST or n.endswith(UNUSED_LAST)]
    return {n: t for n, t in tensors.items() if n not in unused}, sorted(unused)


def _vision_links(config: ModelConfig, theirs: Tensors) -> list[Link]:
    vision = config.vision
    if "patch_embed.proj.weight" in theirs:
        return vision_links(vision, config.image_size)
    if isinstance(vision, SwinConfig):
        return _swin(vision)
    return _clip(vision) if vision.kind == "clip_vit" else _vit(vision)


def _vit(config: ViTConfig) -> list[Link]:
    links = [
        Link("class_token", ("embeddings.cls_token",)),
        Link("position", ("embeddings.position_embeddings",)),
        *same([("patch_embedding", "embeddings.patch_embeddings.projection")]),
    ]
    for i in range(config.layers):
        block = _block([f"attention.attention.{part}" for part in ("query", "key", "value")])
        links += prefixed(block, f"blocks.{i}.", f"encoder.layer.{i}.")
    return links + same([("norm", "layernorm")])


def _swin(config: SwinConfig) -> list[Link]:
    links = same([("patch_embedding", "embeddings.patch_embeddings.projection"), ("patch_norm", "embeddings.norm")])
    for stage, depth in enumerate(config.depths):
        block = _block([f"attention.self.{part}" for part in ("query", "key", "value")])
        table = "attention.self.relative_position_bias_table"
        block.append(Link("attention.relative_position_bias", (table,)))
        for i in range(depth):
            links += prefixed(block, f"stages.{stage}.{i}.", f"encoder.layers.{stage}.blocks.{i}.")
        if stage + 1 < len(config.depths):
            ours, theirs = f"merges.{stage}", f"encoder.layers.{stage}.downsample"
            links += [Link(f"{ours}.reduction.weight", (f"{theirs}.reduction.weight",))]
            links += same([(f"{ours}.norm", f"{theirs}.norm")])
    return links + same([("norm", "layernorm")])


def _block(qkv: list[str]) -> list[Link]:
    return cat("attention.qkv", qkv) + same(
        [
            ("attention.out", "attention.output.dense"),
            ("norm1", "layernorm_before"),
            ("norm2", "layernorm_after"),
            ("mlp.0", "intermediate.dense"),
            ("mlp.2", "output.dense"),
        ]
    )


def _clip(config: ViTConfig) -> list[Link]:
    embeddings = [
        Link("class_token", ("embeddings.class_embedding",), "token"),
        Link("patch_embedding.weight", ("embeddings.patch_embedding.weight",)),
        Link("position", ("embeddings.position_embedding.weight",), "row"),
    ]
    return embeddings + clip_block_links(config.layers)
