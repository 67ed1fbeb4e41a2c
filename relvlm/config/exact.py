"""Which options of a config change what is computed for the sake of speed: *not exact*, and off by default."""

from __future__ import annotations

from dataclasses import replace

from relvlm.config.schema import Config, LowResolutionConfig
from relvlm.config.vision import ViTConfig


def exact(config: Config) -> Config:
    """The same without the options that are not exact: every step sees all patches, at full size."""
    vision = config.model.vision
    if isinstance(vision, ViTConfig):
        vision = replace(vision, patch_keep=1.0)
    return replace(config, model=replace(config.model, vision=vision), low_resolution=LowResolutionConfig())


def not_exact(config: Config) -> dict[str, Config]:
    """The options in use that are not exact, in words, each with the config that has it alone."""
    plain, vision, low = exact(config), config.model.vision, config.low_resolution
    found = {}
    if isinstance(vision, ViTConfig) and vision.patch_keep < 1:
        share = f"model.vision.patch_keep: {vision.patch_keep:g} (not exact)"
        found[share] = replace(plain, model=config.model)
    if low.steps:
        phase = f"low_resolution: {low.steps:,} steps at {low.image_size} px (not exact)"
        found[phase] = replace(plain, low_resolution=low)
    return found
