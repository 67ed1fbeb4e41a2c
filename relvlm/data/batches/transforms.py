"""Pixels: crop, resize, flip, colour augmentation, normalisation.

A flip exchanges left and right, so `flip_sample` swaps the words of every text, label and predicate too.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from random import Random

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

from relvlm.data.decoders import Picture
from relvlm.data.pictures import to_rgb
from relvlm.data.shards.schema import Box, Sample

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
_SIDE = re.compile(r"(?<![^\W_])(left|right)(?=(?:most|hand|handed|ward|wards|side)?(?![^\W_]))", re.IGNORECASE)


def resize_square(picture: Picture, size: int, crop: Box | None = None) -> np.ndarray:
    """Bicubic (`size`, `size`, 3) uint8 of an opened image, or of its `crop` (whole pixels of the stored image).

    A JPEG is decoded at half, quarter or eighth size where that still covers the result.
    """
    width, height = picture.size
    x0, y0, x1, y1 = crop or (0, 0, width, height)
    shrink = min(width // math.ceil(width * size / (x1 - x0)), height // math.ceil(height * size / (y1 - y0)))
    pixels_HWC = picture.pixels(shrink)
    shown = pixels_HWC.shape[1], pixels_HWC.shape[0]
    if shown == (width, height):
        return _resize(pixels_HWC[round(y0) : round(y1), round(x0) : round(x1)], size)
    if (x0, y0, x1, y1) == (0, 0, width, height):
        return _resize(pixels_HWC, size)
    sx, sy = shown[0] / width, shown[1] / height  # torch cannot begin between two pixels
    square = Image.fromarray(pixels_HWC).resize(
        (size, size), Image.Resampling.BICUBIC, box=(x0 * sx, y0 * sy, x1 * sx, y1 * sy)
    )
    return np.array(square)


def _resize(pixels_HWC: np.ndarray, size: int) -> np.ndarray:
    """Pillow's bicubic filter, as torch has it for bytes: the same to .02 grey levels, in under half of the time."""
    if pixels_HWC.shape[:2] == (size, size):
        return pixels_HWC
    image_BHWC = torch.from_numpy(np.ascontiguousarray(pixels_HWC)).unsqueeze(0)  # else torch goes by way of planes
    image_BCHW = image_BHWC.permute(0, 3, 1, 2)
    square_BCHW = F.interpolate(image_BCHW, (size, size), mode="bicubic", antialias=True)
    return square_BCHW[0].permute(1, 2, 0).numpy()


def eval_transform(size: int) -> Callable[[Image.Image], Tensor]:
    """Square bicubic resize and CLIP normalisation: image -> (3, `size`, `size`) float32."""

    def transform(image: Image.Image) -> Tensor:
        square_HWC = np.array(to_rgb(image).resize((size, size), Image.Resampling.BICUBIC))
        return normalise(torch.from_numpy(square_HWC).permute(2, 0, 1)[None])[0]

    return transform


def normalise(pixels_BCHW: Tensor) -> Tensor:
    """float32 of uint8 pixels by CLIP's mean and standard deviation, where they are: for training and evaluation."""
    scale, shift = _clip_scale_and_shift(pixels_BCHW.device)
    return pixels_BCHW.to(torch.float32, memory_format=torch.contiguous_format).mul_(scale).sub_(shift)


@cache
def _clip_scale_and_shift(device: torch.device) -> tuple[Tensor, Tensor]:
    """Kept on the device: a copy in every step would be waited for."""
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (CLIP_MEAN, CLIP_STD))
    return (1 / (255 * std)).to(device), (mean / std).to(device)


def random_crop(width: int, height: int, min_area: float, rng: Random) -> Box:
    """A crop of `min_area` to 1 of the image and aspect 3/4 to 4/3 (torchvision's RandomResizedCrop).

    The whole image where ten draws do not fit, or `min_area` is 1.
    """
    for _ in range(10 if min_area < 1 else 0):
        area = rng.uniform(min_area, 1) * width * height
        aspect = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            x0, y0 = rng.randint(0, width - w), rng.randint(0, height - h)
            return (x0, y0, x0 + w, y0 + h)
    return (0, 0, width, height)


def flip_box(box: Box, width: float) -> Box:
    """The box in the mirrored image."""
    x0, y0, x1, y1 = box
    return (width - x1, y0, width - x0, y1)


def swap_left_right(text: str) -> str:
    """ "left" and "right" exchanged wherever they are words of their own, or begin one such as "leftmost"."""
    return _SIDE.sub(_other_side, text)


def _other_side(match: re.Match[str]) -> str:
    word = match.group()
    other = "right" if word.lower() == "left" else "left"
    if word.isupper():
        return other.upper()
    return other.capitalize() if word[0].isupper() else other


def flip_sample(sample: Sample) -> Sample:
    """The annotation of the mirrored image: boxes mirrored, sides swapped in every text and predicate."""
    entities = tuple(
        replace(
            entity,
            box=flip_box(entity.box, sample.width),
            label=swap_left_right(entity.label),
            attributes=tuple(map(swap_left_right, entity.attributes)),
        )
        for entity in sample.entities
    )
    relations = tuple(replace(r, predicate=swap_left_right(r.predicate)) for r in sample.relations)
    captions = tuple(map(swap_left_right, sample.captions))
    return replace(sample, captions=captions, entities=entities, relations=relations)


def flip_pixels(pixels_HWC: np.ndarray) -> np.ndarray:
    """The image mirrored left to right."""
    return pixels_HWC[:, ::-1]


Operation = Callable[[np.ndarray], np.ndarray]
_STRENGTH = 0.7 * 1.8 + 0.1  # magnitude 7 of 10


def _in_pillow(operation: Callable[[Image.Image], Image.Image]) -> Operation:
    return lambda pixels_HWC: np.array(operation(Image.fromarray(pixels_HWC)))


def _brighten(pixels_HWC: np.ndarray) -> np.ndarray:
    """ImageEnhance.Brightness, value for value, in a third of the time: no image is made of the array and back."""
    brighter = torch.from_numpy(np.ascontiguousarray(pixels_HWC)).to(torch.float32).mul_(_STRENGTH)
    return brighter.clamp_(max=255).to(torch.uint8).numpy()


def _sharpen(pixels_HWC: np.ndarray) -> np.ndarray:
    """ImageEnhance.Sharpness, value for value, in a quarter of the time; the outermost pixels stay.

    1.36 p - .36 s, s being the mean of a pixel (five times) and its eight neighbours, rounded to a whole number.
    """
    wide = pixels_HWC.astype(np.int16)
    rows = wide[:-2] + wide[1:-1] + wide[2:]
    sums, centre = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:], wide[1:-1, 1:-1]
    sums += 4 * centre + 6
    sums //= 13
    sums *= -9  # 25 times what is sought: no 16 bits are exceeded
    sums += 34 * centre
    sums //= 25
    sharper = pixels_HWC.copy()
    sharper[1:-1, 1:-1] = sums.clip(0, 255)
    return sharper


_COLOUR_OPS: tuple[Operation, ...] = (
    lambda pixels_HWC: pixels_HWC,
    _in_pillow(ImageOps.autocontrast),
    _in_pillow(ImageOps.equalize),
    _brighten,
    _sharpen,
)


# Of level 7 of 10, in pixels (x, y) of the result: shear .3, shift 10 pixels, turn 30 degrees
_SHEAR, _SHIFT, _TURN = 0.7 * 0.3, 0.7 * 10, 0.7 * 30
_GREY = (128, 128, 128)
_GEOMETRY_OPS: tuple[Callable[[Image.Image, int], Image.Image], ...] = (
    lambda image, sign: _affine(image, (1, sign * _SHEAR, 0, 0, 1, 0)),
    lambda image, sign: _affine(image, (1, 0, 0, sign * _SHEAR, 1, 0)),
    lambda image, sign: _affine(image, (1, 0, sign * _SHIFT, 0, 1, 0)),
    lambda image, sign: _affine(image, (1, 0, 0, 0, 1, sign * _SHIFT)),
    lambda image, sign: image.rotate(sign * _TURN, Image.Resampling.BILINEAR, fillcolor=_GREY),
)


def _affine(image: Image.Image, matrix: tuple[float, ...]) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=_GREY)


def colour_augment(pixels_HWC: np.ndarray, rng: Random) -> np.ndarray:
    """X-VLM's colour-only RandAugment(2, 7): two operations are drawn, each applied with probability .5."""
    for operation in (rng.choice(_COLOUR_OPS), rng.choice(_COLOUR_OPS)):
        if rng.random() < 0.5:
            pixels_HWC = operation(pixels_HWC)
    return pixels_HWC


def geometry_augment(pixels_HWC: np.ndarray, rng: Random) -> np.ndarray:
    """RandAugment(2, 7) of ALBEF's and X-VLM's captions: the colour operations, shears, shifts and turns."""
    operations = range(len(_COLOUR_OPS) + len(_GEOMETRY_OPS))
    for drawn in (rng.choice(operations), rng.choice(operations)):
        if rng.random() >= 0.5:
            continue
        if drawn < len(_COLOUR_OPS):
            pixels_HWC = _COLOUR_OPS[drawn](pixels_HWC)
        else:
            move, sign = _GEOMETRY_OPS[drawn - len(_COLOUR_OPS)], rng.choice((-1, 1))
            pixels_HWC = np.array(move(Image.fromarray(pixels_HWC), sign))
    return pixels_HWC
