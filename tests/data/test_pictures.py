"""Encoded images: what is decoded, and what is refused as corrupt or too large."""

import io

import numpy as np
import pytest
from PIL import Image

from relvlm.data.pictures import decode, open_image

LIMIT = 1_000_000


def encode(image: Image.Image, kind: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def noise(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("damage", ["cut", "noise", "empty"])
def test_a_corrupt_image_is_a_value_error(damage):
    data = encode(noise(200, 100))
    broken = {"cut": data[: len(data) // 2], "noise": b"not an image", "empty": b""}[damage]
    with pytest.raises(ValueError, match="image"):
        decode(broken, LIMIT)


def test_other_formats_are_not_read():
    with pytest.raises(ValueError, match="not a readable image"):
        decode(encode(noise(8, 8), "GIF"), LIMIT)


def test_a_too_large_image_is_refused_before_its_pixels_are_read():
    data = encode(noise(200, 100), "PNG")
    assert decode(data, 20_000).size == (200, 100)
    with pytest.raises(ValueError, match=r"200x100 pixels, data\.max_pixels is 19999"):
        open_image(data[:60], 19_999)  # the header alone


def test_pixels_come_as_they_are_stored():
    image = noise(8, 6)
    assert np.array_equal(np.asarray(decode(encode(image, "PNG"), LIMIT)), np.asarray(image))


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK"])
def test_pixels_are_rgb(mode):
    kind = "JPEG" if mode == "CMYK" else "PNG"
    assert decode(encode(noise(8, 8).convert(mode), kind), LIMIT).mode == "RGB"
