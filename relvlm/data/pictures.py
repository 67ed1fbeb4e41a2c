"""Encoded images to pixels: which formats, how large at most, and one error for whatever is wrong with them."""

from __future__ import annotations

import io
import struct

from PIL import Image

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


def open_image(data: bytes, max_pixels: int) -> Image.Image:
    """An image whose header has been read and whose pixels have not; raises ValueError."""
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except _DECODE_ERRORS as error:
        raise ValueError(f"not a readable image: {error}") from error
    if image.width * image.height > max_pixels:
        raise ValueError(f"image of {image.width}x{image.height} pixels, data.max_pixels is {max_pixels}")
    return image


def load_pixels(image: Image.Image) -> Image.Image:
    """The image of `open_image` decoded to RGB; raises ValueError where it is corrupt or cut short."""
    try:
        image.load()
        return image if image.mode == "RGB" else image.convert("RGB")
    except _DECODE_ERRORS as error:
        raise ValueError(f"corrupt image: {error}") from error


def decode(data: bytes, max_pixels: int) -> Image.Image:
    """RGB image of encoded bytes; raises ValueError where they are corrupt or hold more than `max_pixels`."""
    return load_pixels(open_image(data, max_pixels))
