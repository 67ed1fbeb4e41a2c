"""Antialiased shape masks and coloured tiles, drawn once per (look, side) and kept."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache
from math import cos, pi, sin

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from relvlm.relworld.lexicon import COLOURS, RGB
from relvlm.relworld.scene import Look

_CANVAS = 256
Point = tuple[float, float]

_POLYGONS: dict[str, Sequence[Point]] = {
    "square": [(0, 0), (1, 0), (1, 1), (0, 1)],
    "triangle": [(0.5, 0), (1, 1), (0, 1)],
    "diamond": [(0.5, 0), (1, 0.5), (0.5, 1), (0, 0.5)],
    "hourglass": [(0, 0), (1, 0), (0.58, 0.5), (1, 1), (0, 1), (0.42, 0.5)],
    "house": [(0.5, 0), (1, 0.45), (0.85, 0.45), (0.85, 1), (0.15, 1), (0.15, 0.45), (0, 0.45)],
    "cross": [
        (0.32, 0),
        (0.68, 0),
        (0.68, 0.32),
        (1, 0.32),
        (1, 0.68),
        (0.68, 0.68),
        (0.68, 1),
        (0.32, 1),
        (0.32, 0.68),
        (0, 0.68),
        (0, 0.32),
        (0.32, 0.32),
    ],
    "star": [
        (0.5 + r * sin(pi * k / 5), 0.5 - r * cos(pi * k / 5)) for k in range(10) for r in [0.5 if k % 2 == 0 else 0.23]
    ],
    "heart": [
        (0.5 + sin(t) ** 3 / 2, 0.45 - (13 * cos(t) - 5 * cos(2 * t) - 2 * cos(3 * t) - cos(4 * t)) / 34)
        for k in range(60)
        for t in [2 * pi * k / 60]
    ],
}

# Where, in the shape's own box, there is room for a thing inside it.
CORES: dict[str, Point] = {
    "triangle": (0.5, 0.68),
    "house": (0.5, 0.62),
    "heart": (0.5, 0.42),
    "star": (0.5, 0.54),
    "moon": (0.3, 0.5),
    "hourglass": (0.5, 0.8),
}


@cache
def _master(shape: str) -> Image.Image:
    image = Image.new("L", (_CANVAS, _CANVAS))
    draw = ImageDraw.Draw(image)
    if shape in _POLYGONS:
        draw.polygon([(x * (_CANVAS - 1), y * (_CANVAS - 1)) for x, y in _POLYGONS[shape]], fill=255)
    else:
        draw.ellipse((0, 0, _CANVAS - 1, _CANVAS - 1), fill=255)
    if shape == "moon":
        draw.ellipse((0.55 * _CANVAS, 0.1 * _CANVAS, 1.35 * _CANVAS, 0.9 * _CANVAS), fill=0)
    return image.crop(image.getbbox())


@lru_cache(maxsize=1024)
def shape_mask(shape: str, side: int) -> Image.Image:
    """Alpha (L mode, side x side) of the shape, which fills its box."""
    return _master(shape).resize((side, side), Image.Resampling.BOX)


@lru_cache(maxsize=1024)
def solid_mask(shape: str, side: int) -> np.ndarray:
    """Boolean (side, side): the pixels that the shape covers by half or more."""
    return np.asarray(shape_mask(shape, side)) >= 128


def _pattern(texture: str, side: int) -> np.ndarray:
    y, x = np.ogrid[0:side, 0:side]
    period = max(4, round(side / 4))
    if texture == "striped":
        return np.broadcast_to(y % period < period // 2, (side, side))
    if texture == "dotted":
        half = period / 2
        return (x % period - half + 0.5) ** 2 + (y % period - half + 0.5) ** 2 < (0.34 * period) ** 2
    return (x // (period / 2) + y // (period / 2)) % 2 < 1


@lru_cache(maxsize=1024)
def _texture_mask(texture: str, side: int) -> Image.Image | None:
    """Where the texture is dark (L mode); None for a solid one."""
    return None if texture == "solid" else Image.fromarray(_pattern(texture, side).astype(np.uint8) * 255)


@lru_cache(maxsize=1024)
def _outline(shape: str, side: int) -> Image.Image:
    """Alpha of the shape's outermost pixel."""
    mask = shape_mask(shape, side)
    padded = Image.new("L", (side + 2, side + 2))
    padded.paste(mask, (1, 1))
    core = padded.filter(ImageFilter.MinFilter(3)).crop((1, 1, side + 1, side + 1))
    return ImageChops.subtract(mask, core)


def _darker(colour: RGB, factor: float) -> RGB:
    red, green, blue = (round(channel * factor) for channel in colour)
    return red, green, blue


@lru_cache(maxsize=8192)
def tile(look: Look, side: int) -> Image.Image:
    """RGBA picture of the thing, with its texture and a darker outline."""
    colour = COLOURS[look.colour]
    picture = Image.new("RGB", (side, side), colour)
    texture = _texture_mask(look.texture, side)
    if texture:
        picture.paste(_darker(colour, 0.35), mask=texture)
    picture.paste(_darker(colour, 0.5), mask=_outline(look.shape, side))
    picture.putalpha(shape_mask(look.shape, side))
    return picture
