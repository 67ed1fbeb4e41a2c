"""Toy models that read: with a vocabulary, names of relations, and weights by which texts and photos differ."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from relvlm.config.schema import FusionConfig, ModelConfig, TextConfig
from relvlm.config.vision import SwinConfig, ViTConfig
from relvlm.data.text import Tokenizer
from relvlm.model import RelVLM

WORDS = ["a", "the", "man", "men", "dog", "horse", "cart", "riding", "left", "right", "of", "on"]
WORDS += ["red", "blue", "is", "and"]
TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, "##s"]
RELATIONS = ["left of", "on", "riding"]
VIT = ModelConfig(
    image_size=32,
    embed_dim=8,
    vision=ViTConfig(width=16, layers=1, heads=2, patch_size=8),
    text=TextConfig(width=16, layers=1, heads=2, max_positions=12, dropout=0.0),
    fusion=FusionConfig(layers=2, heads=2),
    mrc_hidden=8,
)
SWIN = replace(VIT, vision=SwinConfig(width=8, depths=[1, 1], heads=[2, 4], window=4, patch_size=4))
LATE = replace(
    VIT, vision=replace(VIT.vision, layers=2, late_blocks=1), fusion=replace(VIT.fusion, region_mask="late_vision")
)
ALBEF = replace(VIT, localisation=False, relations=False)
XVLM = replace(SWIN, relations=False)
REALBEF = replace(VIT, localisation=False)


def reader(folder: Path, config: ModelConfig = VIT, seed: int = 0) -> RelVLM:
    """As `relvlm.load` gives one; weights larger than at initialisation."""
    (folder / "vocab.txt").write_text("\n".join(TOKENS))
    torch.manual_seed(seed)
    model = RelVLM(config, len(TOKENS), len(RELATIONS) if config.relations else 0).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter * 4 if parameter.dim() > 1 else parameter + 0.05 * torch.randn_like(parameter))
    model.tokenizer = Tokenizer(folder / "vocab.txt")
    model.relation_names = RELATIONS if config.relations else []
    model.sep, model.step = True, 7
    return model


def write_reader(folder: Path, config: ModelConfig = VIT, seed: int = 0) -> Path:
    """A checkpoint folder of it."""
    folder.mkdir(parents=True, exist_ok=True)
    model = reader(folder, config, seed)
    tensors = {name: x.contiguous() for name, x in model.state_dict().items() if name != "mlm_head.decoder.weight"}
    save_file(tensors, folder / "model.safetensors")
    description = {"step": model.step, "name": "toy", "model": dataclasses.asdict(config), "vocab_size": len(TOKENS)}
    description |= {"relations": model.relation_names, "data": {"sep": True, "vocab": "vocab.txt"}}
    (folder / "config.json").write_text(json.dumps(description))
    return folder


def noise(seed: int, size: tuple[int, int] = (40, 30)) -> Image.Image:
    """RGB pixels at random."""
    width, height = size
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def write_photos(folder: Path, count: int) -> list[Path]:
    """`0.png`, `1.png`, ... of noise."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number}.png" for number in range(count)]
    for number, path in enumerate(paths):
        noise(number).save(path)
    return paths
