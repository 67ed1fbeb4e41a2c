"""Decoded pixels are Pillow's, whoever decodes them: what is compared, and by how much real photos may differ."""

import io

import numpy as np
import pytest
from PIL import Image

from relvlm.data import decoders
from relvlm.data.batches.transforms import resize_square
from relvlm.data.decoders import JpegPicture, PillowPicture, open_by_pillow, open_picture
from relvlm.data.pictures import decode

LIMIT = 10_000_000
CROPS = (None, (0, 0, 200, 150), (101, 37, 421, 301), (33, 20, 97, 90))


def photo(width=203, height=131, mode="RGB", **options):
    y, x = np.mgrid[0:height, 0:width]
    noise = np.random.default_rng(0).integers(0, 60, (height, width))
    planes = np.stack([x % 256, y % 256, 100 + noise], -1).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(planes).convert(mode).save(stream, "JPEG", **options)
    return stream.getvalue()


@pytest.fixture
def fast():
    pytest.importorskip("simplejpeg", reason="needs simplejpeg (pip install 'relvlm[fast]')")


@pytest.fixture
def without_simplejpeg(monkeypatch):
    monkeypatch.setattr(decoders, "has_simplejpeg", lambda: False)


def by_pillow(data, shrink=1):
    return open_by_pillow(data, LIMIT).pixels(shrink)


def test_a_run_says_which_decoder_it_does_without(without_simplejpeg):
    assert decoders.remarks() == [
        "JPEGs are decoded by Pillow; simplejpeg gives the same pixels sooner (pip install 'relvlm[fast]')"
    ]


def test_a_run_with_simplejpeg_has_nothing_to_say(fast):
    assert decoders.remarks() == []


@pytest.mark.parametrize("shrink", [1, 2, 3, 4, 8, 11])
@pytest.mark.parametrize(
    "options",
    [{"subsampling": 0}, {"subsampling": 2}, {"progressive": True}, {"mode": "L"}, {"width": 5, "height": 7}],
)
def test_both_decoders_give_the_same_pixels(fast, options, shrink):
    data = photo(quality=80, **options)
    picture = open_picture(data, LIMIT)
    assert isinstance(picture, JpegPicture)
    if "width" in options:
        shrink = 1  # to so short sides several of libjpeg's eighths shrink alike
    assert np.array_equal(picture.pixels(shrink), by_pillow(data, shrink))


@pytest.mark.parametrize(("shrink", "size"), [(1, (203, 131)), (2, (102, 66)), (3, (102, 66)), (9, (26, 17))])
def test_a_jpeg_is_shrunk_by_a_power_of_two_at_most(shrink, size):
    for picture in (open_picture(photo(), LIMIT), open_by_pillow(photo(), LIMIT)):
        assert picture.pixels(shrink).shape == (size[1], size[0], 3)
        assert picture.size == (203, 131)


def test_what_simplejpeg_does_not_know_is_pillows(fast):
    cmyk, png = photo(mode="CMYK"), io.BytesIO()
    Image.new("RGB", (8, 6), (1, 2, 3)).save(png, "PNG")
    for data in (cmyk, png.getvalue()):
        picture = open_picture(data, LIMIT)
        assert isinstance(picture, PillowPicture)
        assert np.array_equal(picture.pixels(), np.asarray(decode(data, LIMIT)))


@pytest.mark.parametrize("damage", ["cut", "header"])
def test_a_damaged_jpeg_is_a_value_error(damage):
    data = photo()
    broken = {"cut": data[: len(data) // 2], "header": data[:30]}[damage]
    with pytest.raises(ValueError, match="image"):
        open_picture(broken, LIMIT).pixels()


def test_a_jpeg_that_only_pillow_bears_is_read_by_pillow(fast):
    import simplejpeg

    data = photo()
    odd = data[:-2] + b"\0\0\0" + data[-2:]  # bytes too many before the end: libjpeg warns
    with pytest.raises(ValueError):
        simplejpeg.decode_jpeg(odd)
    for shrink in (1, 2):
        assert np.array_equal(open_picture(odd, LIMIT).pixels(shrink), by_pillow(odd, shrink))


def test_a_too_large_jpeg_is_refused_by_its_header():
    data = photo()
    assert open_picture(data, 203 * 131).size == (203, 131)
    with pytest.raises(ValueError, match=r"203x131 pixels, data\.max_pixels is 26592"):
        open_picture(data[:700], 203 * 131 - 1)


def plain_pillow(data, size, crop):
    """As torchvision does it: cut out, then resized, so that nothing beyond the crop shows."""
    image = Image.open(io.BytesIO(data)).convert("RGB").crop(crop)
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC)).astype(float)


def files(shared):
    return sorted((shared / "data/coco_cc/images").iterdir())[::9]


def test_real_photos_differ_from_plain_pillow_by_less_than_a_tenth_of_a_grey_level(shared, fast):
    """The mean over all values of a crop that is decoded at full size; for the worst of all photos and crops."""
    differences = []
    for file in files(shared):
        data = file.read_bytes()
        width, height = open_picture(data, LIMIT).size
        crops = [crop for crop in CROPS if crop and crop[2] <= width and crop[3] <= height]
        for crop in crops:
            square = resize_square(open_picture(data, LIMIT), 224, crop)
            differences.append(np.abs(square - plain_pillow(data, 224, crop)).mean())
    assert len(differences) > 30
    assert max(differences) < 0.1 and np.mean(differences) < 0.02


def test_real_photos_are_the_same_squares_with_and_without_simplejpeg(shared, fast, monkeypatch):
    cases = [(file.read_bytes(), size, crop) for file in files(shared)[:6] for size in (64, 224) for crop in CROPS]
    quick = [resize_square(open_picture(data, LIMIT), size, crop) for data, size, crop in cases]
    monkeypatch.setattr(decoders, "has_simplejpeg", lambda: False)
    for square, (data, size, crop) in zip(quick, cases, strict=True):
        assert np.array_equal(square, resize_square(open_picture(data, LIMIT), size, crop))


@pytest.mark.parametrize("decoder", ["simplejpeg", "Pillow"])
def test_a_shrunk_photo_is_cut_where_its_crop_begins(decoder, request):
    """At an eighth of its size a crop begins between two pixels; it must not move by a part of one."""
    request.getfixturevalue("fast" if decoder == "simplejpeg" else "without_simplejpeg")
    data = photo(1600, 1200, quality=95)
    crop = (101, 51, 101 + 1100, 51 + 1100)
    square = resize_square(open_picture(data, LIMIT), 128, crop).astype(float)
    moved = [np.abs(square - plain_pillow(data, 128, (x, 51, x + 1100, 51 + 1100))).mean() for x in (97, 101, 105)]
    assert moved[1] < moved[0] and moved[1] < moved[2]
