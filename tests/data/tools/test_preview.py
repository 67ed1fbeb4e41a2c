"""A sheet shows what can be shown, and names the rest."""

import io

import pytest
from PIL import Image
from support.shards import toy_photo, toy_sample, write_toys

from relvlm.data.shards.schema import Sample
from relvlm.data.shards.store import Record, write_shards
from relvlm.data.tools.preview import HEIGHT, WIDTH, picture, preview
from relvlm.errors import UserError


def damage(folder, number, part):
    """Overwrite some of a member's bytes: the photo's pixels, or the JSON's first character."""
    tar = folder / "000000.tar"
    data = toy_photo(number)
    old, new = (
        (data[40:50], b"\xff" * 10) if part == "photo" else (b'{"image_id":"%d"' % number, b'["image_id":"%d"' % number)
    )
    place = tar.read_bytes().index(data) + 40 if part == "photo" else tar.read_bytes().index(old)
    with tar.open("r+b") as stream:
        stream.seek(place)
        stream.write(new)


@pytest.mark.parametrize("suffix", ["html", "png"])
@pytest.mark.parametrize("part", ["photo", "JSON"])
def test_a_damaged_sample_is_named_and_the_others_shown(tmp_path, suffix, part):
    folder = write_toys(tmp_path / "set", 5, shard_size=5)
    damage(folder, 2, part)
    shown, faults = preview(folder, tmp_path / f"look.{suffix}")
    assert shown == 4 and len(faults) == 1
    assert faults[0].startswith("000000.tar: k2: ")
    if suffix == "html":
        page = (tmp_path / "look.html").read_text()
        assert page.count("<figure>") == 4 and "caption 2" not in page and "caption 3" in page


def test_a_photo_of_another_size_than_its_boxes_is_named(tmp_path):
    samples = [("a", toy_photo(1, (6, 8)), toy_sample(1)), ("b", toy_photo(2), toy_sample(2))]
    write_shards(tmp_path / "set", samples, source="toy", builder_args={})
    assert preview(tmp_path / "set", tmp_path / "look.png") == (
        1,
        ["000000.tar: a: image is 6x8, its JSON says 8x6"],
    )


def test_a_set_of_which_nothing_can_be_shown_is_one_error(tmp_path):
    folder = write_toys(tmp_path / "set", 1)
    damage(folder, 0, "photo")
    with pytest.raises(
        UserError, match=r"none of 1 samples can be shown, first: 000000\.tar: k0: not a readable image"
    ):
        preview(folder, tmp_path / "look.png")
    assert not (tmp_path / "look.png").exists()


def test_a_sheet_that_cannot_be_written_is_one_error(tmp_path):
    (tmp_path / "look.html").mkdir()
    with pytest.raises(UserError, match=r"look\.html: cannot be written: Is a directory"):
        preview(write_toys(tmp_path / "set", 1), tmp_path / "look.html")


def test_a_very_high_photo_stays_on_the_sheet():
    stream = io.BytesIO()
    Image.new("RGB", (2, 3000)).save(stream, "PNG")
    shown = picture(Record("k", "0.tar", stream.getvalue(), Sample("1", 2, 3000)))
    assert shown.height == HEIGHT and 1 <= shown.width < WIDTH
