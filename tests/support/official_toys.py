"""Toy models of the official families, and their tensors under the official names."""

from dataclasses import replace
from functools import cache

import torch
from torch import Tensor

from relvlm.config.schema import FusionConfig, ModelConfig, MomentumConfig, TextConfig
from relvlm.config.vision import SwinConfig, ViTConfig
from relvlm.convert.names import Family
from relvlm.convert.official import to_official
from relvlm.model import RelVLM
from relvlm.pretraining.step import Pretraining

WORDS = 30
VIT = ViTConfig(width=128, layers=3, heads=2, patch_size=8, mlp_ratio=2.0, late_blocks=3)
ALBEF = ModelConfig(
    image_size=48,
    embed_dim=12,
    vision=VIT,
    text=TextConfig(layers=2, heads=2, width=128, mlp_ratio=3.0, max_positions=20),
    fusion=FusionConfig(layers=1, heads=2),
    momentum=MomentumConfig(enabled=True, queue=24),
    localisation=False,
    relations=False,
    negatives="official",
)
XVLM = replace(
    ALBEF,
    vision=replace(VIT, late_blocks=2),
    fusion=replace(ALBEF.fusion, region_mask="late_vision"),
    momentum=MomentumConfig(),
    localisation=True,
    itm_head="mlp",
    itm_floor=1e-5,
    itc_gradient="own_rank",
)
SWIN = replace(
    XVLM,
    image_size=64,
    vision=SwinConfig(width=8, depths=[2, 1], heads=[1, 4], window=4, patch_size=4, mlp_ratio=2.0, drop_path=0.1),
    fusion=replace(XVLM.fusion, region_mask="cross_attention"),
)
CLIP = replace(XVLM, vision=replace(XVLM.vision, kind="clip_vit"))
MODELS = {"albef": ALBEF, "xvlm": XVLM, "swin": SWIN, "clip": CLIP}


def family(name: str) -> Family:
    return "albef" if name == "albef" else "xvlm"


@cache
def pretraining(name: str) -> Pretraining:
    """The toy, with its teacher where it has one."""
    torch.manual_seed(0)
    return Pretraining(RelVLM(MODELS[name], WORDS, relations=0))


def official(name: str) -> dict[str, Tensor]:
    """Its official tensors."""
    whole = pretraining(name)
    return to_official(whole.model, family(name), whole.teacher.state_dict() if whole.teacher else None)
