import io
import math
from random import Random

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from relvlm.data.batches.transforms import (
    _COLOUR_OPS,
    _GEOMETRY_OPS,
    CLIP_MEAN,
    CLIP_STD,
    colour_augment,
    eval_transform,
    flip_pixels,
    flip_sample,
    geometry_augment,
    normalise,
    random_crop,
    resize_square,
    swap_left_right,
)
from relvlm.data.decoders import open_picture
from relvlm.data.shards.schema import Entity, Relation, Sample

LIMIT = 1_000_000


def encode(image: Image.Image, kind: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, quality=95)
    return buffer.getvalue()


def smooth(width: int, height: int) -> Image.Image:
    y, x = np.mgrid[0:height, 0:width]
    planes = [255 * x / width, 255 * y / height, 127 + 100 * np.sin(x / width * 6)]
    return Image.fromarray(np.stack(planes, -1).astype(np.uint8))


@pytest.mark.parametrize(
    ("text", "swapped"),
    [
        ("a cat left of a dog", "a cat right of a dog"),
        ("Left hand, RIGHT foot", "Right hand, LEFT foot"),
        ("the leftmost and right-hand one", "the rightmost and left-hand one"),
        ("to_the_left_of", "to_the_right_of"),
        ("bright leftover copyright", "bright leftover copyright"),
    ],
)
def test_swap_left_right_changes_whole_words(text, swapped):
    assert swap_left_right(text) == swapped
    assert swap_left_right(swapped) == text


def test_flip_swaps_left_and_right():
    sample = Sample(
        "1",
        100,
        50,
        captions=("a man on the left",),
        entities=(Entity("a", "left shoe", (10, 5, 30, 20), ("right",)), Entity("b", "dog", (0, 0, 100, 50))),
        relations=(Relation("a", "to the right of", "b"),),
    )
    flipped = flip_sample(sample)
    assert flipped.captions == ("a man on the right",)
    assert flipped.entities[0] == Entity("a", "right shoe", (70, 5, 90, 20), ("left",))
    assert flipped.entities[1].box == (0, 0, 100, 50)
    assert flipped.relations == (Relation("a", "to the left of", "b"),)
    assert flip_sample(flipped) == sample


def test_flipped_box_holds_the_same_pixels():
    image = Image.new("RGB", (40, 20))
    image.paste((255, 0, 0), (5, 2, 12, 9))
    box = flip_sample(Sample("1", 40, 20, entities=(Entity("a", "x", (5, 2, 12, 9)),))).entities[0].box
    assert Image.fromarray(flip_pixels(np.asarray(image))).getbbox() == box


@pytest.mark.parametrize("crop", [None, (101, 50, 301, 250), (7, 3, 590, 400)])
def test_shrunk_decoding_shows_the_same_crop(crop):
    image = smooth(600, 400)
    expected = image.resize((64, 64), Image.Resampling.BICUBIC, box=crop)
    shrunk = resize_square(open_picture(encode(image), LIMIT), 64, crop)
    difference = np.abs(shrunk.astype(float) - np.asarray(expected, float))
    assert difference.mean() < 2


def test_no_resize_where_none_is_needed():
    image = smooth(64, 64)
    assert np.array_equal(resize_square(open_picture(encode(image, "PNG"), LIMIT), 64), np.asarray(image))


@pytest.mark.parametrize("crop", [None, (7, 3, 190, 170)])
def test_a_square_is_one_block_of_memory(crop):
    """A batch is made of such by copying, and Pillow reads them as they are; planes would have to be interleaved."""
    square = resize_square(open_picture(encode(smooth(200, 180)), LIMIT), 64, crop)
    assert square.flags.c_contiguous and square.flags.writeable


def test_eval_transform_normalises_by_clip():
    pixels = eval_transform(16)(Image.new("RGB", (40, 30), (255, 0, 128)))
    expected = (torch.tensor([1, 0, 128 / 255]) - torch.tensor(CLIP_MEAN)) / torch.tensor(CLIP_STD)
    assert pixels.shape == (3, 16, 16)
    assert pixels.dtype == torch.float32
    torch.testing.assert_close(pixels, expected.view(3, 1, 1).expand(3, 16, 16), atol=1e-5, rtol=0)


def test_normalise_keeps_axes_apart():
    images_BHWC = torch.randint(0, 256, (2, 4, 6, 3), dtype=torch.uint8)
    pixels = normalise(images_BHWC.permute(0, 3, 1, 2))
    assert pixels.is_contiguous() and pixels.dtype == torch.float32
    expected = (images_BHWC[1, 3, 5, 2].item() / 255 - CLIP_MEAN[2]) / CLIP_STD[2]
    assert pixels[1, 2, 3, 5].item() == pytest.approx(expected, abs=1e-5)


def test_normalising_leaves_the_bytes_as_they_are():
    pixels = torch.full((1, 3, 2, 2), 7, dtype=torch.uint8)
    normalise(pixels)
    assert (pixels == 7).all()


def test_random_crop_stays_inside_and_above_the_area():
    rng = Random(0)
    for _ in range(300):
        x0, y0, x1, y1 = random_crop(120, 80, 0.3, rng)
        assert 0 <= x0 < x1 <= 120
        assert 0 <= y0 < y1 <= 80
        assert (x1 - x0) * (y1 - y0) >= 0.29 * 120 * 80


def test_crop_scale_of_one_keeps_the_image():
    assert random_crop(120, 80, 1.0, Random(0)) == (0, 0, 120, 80)


def test_colour_augment_keeps_geometry():
    pixels = np.array(smooth(32, 32))
    results = [colour_augment(pixels, Random(seed)) for seed in range(30)]
    assert 10 <= sum(not np.array_equal(r, pixels) for r in results) <= 25  # 16 of 25
    for result in results:  # the first plane rises from left to right under every operation
        assert np.all(np.diff(result[16, 1:-1, 0].astype(int)) >= 0)


BY_PILLOW = (
    lambda image: image,
    ImageOps.autocontrast,
    ImageOps.equalize,
    lambda image: ImageEnhance.Brightness(image).enhance(0.7 * 1.8 + 0.1),
    lambda image: ImageEnhance.Sharpness(image).enhance(0.7 * 1.8 + 0.1),
)


def random_pixels(*shape, low=0, high=256):
    return np.random.default_rng(3).integers(low, high, (*shape, 3), dtype=np.uint8)


@pytest.mark.parametrize("number", range(5))
@pytest.mark.parametrize(
    "pixels", [random_pixels(224, 200), random_pixels(64, 64, low=100, high=140), np.arange(768, dtype=np.uint16)]
)
def test_colour_operations_are_pillows_value_for_value(number, pixels):
    if pixels.ndim == 1:
        pixels = (pixels % 256).astype(np.uint8).reshape(16, 16, 3)
    before = pixels.copy()
    expected = np.asarray(BY_PILLOW[number](Image.fromarray(pixels)))
    for given in (pixels, pixels[:, ::-1]):  # as it comes from a flip
        found = _COLOUR_OPS[number](given)
        assert np.array_equal(found if given is pixels else found[:, ::-1], expected)
    assert np.array_equal(pixels, before)


def test_operations_are_applied_in_the_order_in_which_they_are_drawn():
    pixels = np.array(smooth(32, 32))
    for seed in range(40):
        rng, image = Random(seed), Image.fromarray(pixels)
        for operation in (rng.choice(BY_PILLOW), rng.choice(BY_PILLOW)):
            if rng.random() < 0.5:
                image = operation(image)
        assert np.array_equal(colour_augment(pixels, Random(seed)), np.asarray(image))


def test_geometry_augment_moves_things_and_fills_with_grey():
    red = np.array(Image.new("RGB", (40, 40), (200, 10, 10)))
    results = [geometry_augment(red, Random(seed)) for seed in range(60)]
    assert all(result.shape == (40, 40, 3) for result in results)
    moved = [result for result in results if (result == 128).all(-1).any()]
    assert 20 <= len(moved) <= 50  # half of the ten operations move, each drawn one is applied with .5
    assert any(not (result == 128).all(-1).any() for result in results)


def test_normalisation_is_clips():
    assert CLIP_MEAN == (0.48145466, 0.4578275, 0.40821073) and CLIP_STD == (0.26862954, 0.26130258, 0.27577711)


def test_crops_of_a_seed_are_the_same_in_every_version():
    assert [random_crop(120, 80, 0.3, Random(seed)) for seed in range(6)] == [
        (13, 4, 93, 80),
        (48, 2, 116, 58),
        (21, 9, 72, 73),
        (23, 14, 91, 80),
        (25, 3, 85, 78),
        (25, 2, 115, 80),
    ]


def test_where_no_crop_fits_the_image_stays_whole():
    assert random_crop(400, 20, 0.9, Random(0)) == (0, 0, 400, 20)


def test_crops_are_of_aspect_3_to_4_at_most():
    for seed in range(200):
        x0, y0, x1, y1 = random_crop(400, 400, 0.1, Random(seed))
        assert 0.73 < (x1 - x0) / (y1 - y0) < 1.36


def test_colour_operations_are_of_strength_7():
    grey = np.full((4, 4, 3), 100, np.uint8)
    assert len(_COLOUR_OPS) == 5
    assert {tuple(operation(grey)[0, 0].tolist()) for operation in _COLOUR_OPS} == {(100,) * 3, (136,) * 3}


@pytest.mark.parametrize(
    ("operation", "sign", "source"),
    [
        (0, 1, lambda x, y: (x + 0.21 * y, y)),
        (0, -1, lambda x, y: (x - 0.21 * y, y)),
        (1, 1, lambda x, y: (x, y + 0.21 * x)),
        (2, 1, lambda x, y: (x + 7, y)),
        (2, -1, lambda x, y: (x - 7, y)),
        (3, 1, lambda x, y: (x, y + 7)),
        (4, 1, lambda x, y: turned(x, y, 21)),
        (4, -1, lambda x, y: turned(x, y, -21)),
    ],
)
def test_geometry_operations_are_of_strength_7(operation, sign, source):
    y, x = np.mgrid[0:60, 0:60]
    image = Image.fromarray(np.stack([4 * x, 4 * y, 0 * x], -1).astype(np.uint8))
    found = np.asarray(_GEOMETRY_OPS[operation](image, sign)).astype(float)
    for place in ((20, 20), (40, 30), (25, 45)):
        assert found[place[1], place[0], :2] / 4 == pytest.approx(source(*place), abs=0.8)


def turned(x, y, degrees):
    angle = math.radians(degrees)
    dx, dy = x - 29.5, y - 29.5
    return 29.5 + math.cos(angle) * dx - math.sin(angle) * dy, 29.5 + math.sin(angle) * dx + math.cos(angle) * dy
