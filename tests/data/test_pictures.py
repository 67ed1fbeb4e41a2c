"""Encoded images: what is decoded, and what is refused as corrupt or too large."""

import io

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from relvlm.data.pictures import decode, open_image, to_rgb

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


def first_pixel(image: Image.Image, kind: str = "PNG", **options: object) -> tuple[int, ...]:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    pixels = decode(buffer.getvalue(), LIMIT)
    assert pixels.mode == "RGB"
    return pixels.getpixel((0, 0))


@pytest.mark.parametrize(
    ("mode", "stored", "seen"),
    [
        ("1", 1, (255, 255, 255)),
        ("L", 100, (100, 100, 100)),
        ("LA", (100, 0), (100, 100, 100)),
        ("RGBA", (10, 20, 30, 0), (10, 20, 30)),
        ("I;16", 0, (0, 0, 0)),
        ("I;16", 255, (0, 0, 0)),
        ("I;16", 256, (1, 1, 1)),
        ("I;16", 0x8000, (128, 128, 128)),
        ("I;16", 0xFFFF, (255, 255, 255)),
    ],
)
def test_a_png_of_any_mode_shows_its_colour(mode, stored, seen):
    assert first_pixel(Image.new(mode, (2, 2), stored)) == seen


@pytest.mark.parametrize("transparency", [None, 0, b"\0\xff"])
def test_a_palette_shows_its_colour_transparent_or_not(transparency):
    image = Image.new("P", (2, 2), 0)
    image.putpalette([10, 20, 30, 40, 50, 60])
    options = {} if transparency is None else {"transparency": transparency}
    assert first_pixel(image, **options) == (10, 20, 30)


def test_a_cmyk_jpeg_shows_its_colour():
    red = first_pixel(Image.new("RGB", (8, 8), (250, 10, 10)).convert("CMYK"), "JPEG", quality=100)
    assert np.allclose(red, (250, 10, 10), atol=4)


@pytest.mark.parametrize("order", ["<u2", ">u2"])
def test_16_bit_grey_keeps_its_steps_in_either_byte_order(order):
    steps = np.arange(0, 0x10000, 0x100, dtype=np.uint16).reshape(16, 16)
    image = Image.frombytes("I;16" if order == "<u2" else "I;16B", (16, 16), steps.astype(order).tobytes())
    seen = np.asarray(to_rgb(image))
    assert np.array_equal(seen[..., 0].ravel(), np.arange(256)) and (seen == seen[..., :1]).all()


@pytest.mark.parametrize("mode", ["I", "F"])
def test_what_has_no_known_range_is_refused(mode):
    with pytest.raises(ValueError, match=f"mode {mode}, 32 bits"):
        to_rgb(Image.new(mode, (2, 2), 1))


def test_pixels_are_those_of_the_boxes_whatever_the_orientation_says():
    turned = Image.Exif()
    turned[0x112] = 6
    image = noise(8, 6)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", exif=turned)
    assert decode(buffer.getvalue(), LIMIT).size == (8, 6)


def test_a_png_with_an_oversized_text_is_a_value_error():
    text = PngImagePlugin.PngInfo()
    text.add_text("note", "x" * 2_000_000, zip=True)
    buffer = io.BytesIO()
    noise(8, 6).save(buffer, "PNG", pnginfo=text)
    with pytest.raises(ValueError, match="image: Decompressed data too large"):
        decode(buffer.getvalue(), LIMIT)
