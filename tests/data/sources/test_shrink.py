"""Photos made smaller, and their boxes with them."""

import io

import pytest
from PIL import Image

from relvlm.data.shards.schema import Entity, Sample
from relvlm.data.sources.shrink import shrink


def photo(width, height):
    stream = io.BytesIO()
    picture = Image.new("RGB", (width, height), "black")
    picture.paste("white", (width // 2, height // 2, width, height))
    picture.save(stream, "PNG")
    return stream.getvalue()


def sample(width, height, *boxes):
    entities = tuple(Entity(str(n), "dog", box) for n, box in enumerate(boxes))
    return Sample("7", width, height, "toy", captions=("a dog",), entities=entities)


@pytest.mark.parametrize(("width", "height"), [(40, 30), (30, 40), (8, 8)])
def test_what_is_no_longer_stays_as_it_is(width, height):
    given = b"not even a photo", sample(width, height)
    assert shrink(*given, 40) == given


@pytest.mark.parametrize(
    ("size", "longest", "small"),
    [((40, 30), 39, (39, 29)), ((30, 40), 20, (15, 20)), ((400, 1), 40, (40, 1)), ((40, 30), 9, (9, 7))],
)
def test_the_longer_side_is_as_long_as_asked_for(size, longest, small):
    data, found = shrink(photo(*size), sample(*size), longest)
    assert (found.width, found.height) == Image.open(io.BytesIO(data)).size == small
    assert (found.captions, found.image_id) == (("a dog",), "7")


def test_boxes_shrink_with_the_photo_and_go_when_thinner_than_a_pixel():
    data, found = shrink(photo(40, 20), sample(40, 20, (20, 10, 40, 20), (4, 4, 8, 12), (4, 4, 7, 20)), 10)
    assert [e.box for e in found.entities] == [(5, 2.5, 10, 5), (1, 1, 2, 3)]
    picture = Image.open(io.BytesIO(data))
    assert picture.format == "JPEG" and max(picture.quantization[0]) == 12  # quality 95
    assert min(picture.convert("RGB").getpixel((8, 4))) > 200


def test_a_photo_that_cannot_be_decoded_is_an_error():
    with pytest.raises(ValueError, match="image"):
        shrink(photo(40, 30)[:60], sample(40, 30), 10)
