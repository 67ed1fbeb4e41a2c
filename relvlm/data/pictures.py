"""Encoded images to pixels: which formats, how large at most, and one error for whatever is wrong with them."""

from __future__ import annotations

import io
import struct

import numpy as np
from PIL import Image, UnidentifiedImageError

FORMATS = ("JPEG", "PNG")  # what shards hold; other decoders are only a risk
_DECODE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    IndexError,
    struct.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)


def open_image(data: bytes, max_pixels: int, formats: tuple[str, ...] = FORMATS) -> Image.Image:
    """An image whose header has been read and whose pixels have not; raises ValueError."""
    try:
        image = Image.open(io.BytesIO(data), formats=formats)
    except UnidentifiedImageError as error:  # whose own message differs from run to run
        raise ValueError(f"not a readable image: neither {' nor '.join(formats)}, or cut short") from error
    except _DECODE_ERRORS as error:
        raise ValueError(f"not a readable image: {error}") from error
    check_pixels(image.width, image.height, max_pixels)
    return image


def check_pixels(width: int, height: int, max_pixels: int) -> None:
    """Raise ValueError for an image of more pixels."""
    if width * height > max_pixels:
        raise ValueError(f"image of {width}x{height} pixels, data.max_pixels is {max_pixels}")


def load_pixels(image: Image.Image) -> Image.Image:
    """The image of `open_image` decoded to RGB; raises ValueError where it is corrupt or cut short."""
    try:
        image.load()
        return to_rgb(image)
    except _DECODE_ERRORS as error:
        raise ValueError(f"corrupt image: {error}") from error


def to_rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB of an image of any mode; raises ValueError for 32 bits a pixel, whose range nothing tells.

    The upper byte of 16-bit grey, as Pillow takes it of 16-bit colour; its own conversion would clip at 255, to white.
    Transparency is dropped and the EXIF orientation not applied, as in the official loaders: boxes are in pixels of
    the stored image.
    """
    if image.mode == "RGB":
        return image
    if image.mode in ("I", "F"):
        raise ValueError(f"image of mode {image.mode}, 32 bits a pixel (save it with 8 or 16)")
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    return image.convert("RGB")


def decode(data: bytes, max_pixels: int) -> Image.Image:
    """RGB image of encoded bytes; raises ValueError where they are corrupt or hold more than `max_pixels`."""
    return load_pixels(open_image(data, max_pixels))
