"""A sheet shows what can be shown, and names the rest."""

import io

import pytest
from PIL import Image
from support.shards import toy_photo, toy_sample, write_toys

from relvlm.data.shards.schema import Entity, Sample
from relvlm.data.shards.store import Record, write_shards
from relvlm.data.tools.preview import HEIGHT, LINES, WIDTH, color, picture, png_sheet, preview
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


def record(number=0, captions=("a dog",), size=(8, 6), **changes):
    stream = io.BytesIO()
    Image.new("RGB", size, (200, 200, 200)).save(stream, "PNG")
    return Record(f"k{number}", "0.tar", stream.getvalue(), Sample(str(number), *size, captions=captions, **changes))


def test_a_card_has_a_line_of_sixteen_pixels_for_each_of_its_lines():
    assert png_sheet([record()]).size == (WIDTH, 315 + 16 + 12)
    assert png_sheet([record(captions=("word " * 20,))]).height == 315 + 2 * 16 + 12  # wrapped


@pytest.mark.parametrize("count", [LINES, LINES + 1])
def test_a_card_has_so_many_lines_at_most(count):
    assert png_sheet([record(captions=tuple(map(str, range(count))))]).height == 315 + 16 * LINES + 12


def test_cards_are_in_rows_each_as_high_as_its_highest():
    high = record(captions=("a", "b", "c"))
    sheet = png_sheet([record(), high, record(), record(), record()])
    assert sheet.size == (4 * WIDTH, (315 + 3 * 16 + 12) + (315 + 16 + 12))
    assert sheet.getpixel((WIDTH + 5, 5)) == (200, 200, 200) == sheet.getpixel((5, 315 + 3 * 16 + 12 + 5))
    assert sheet.getpixel((WIDTH + 5, 315 + 3 * 16 + 12 + 5)) == (255, 255, 255)


def test_boxes_are_drawn_where_they_are_in_their_colours():
    boxes = [(2, 1, 6, 4), (0, 5, 4, 6)]
    entities = tuple(Entity(str(n), "x", box) for n, box in enumerate(boxes))
    shown = picture(record(entities=entities))
    scale = WIDTH / 8
    assert shown.size == (WIDTH, 315)
    edge = round(6 * scale)
    assert shown.getpixel((edge, 150)) == shown.getpixel((edge - 1, 150)) == color(0) == (203, 11, 11)
    assert shown.getpixel((edge - 2, 150)) == shown.getpixel((edge + 1, 150)) == (200, 200, 200)
    assert shown.getpixel((round(4 * scale), 300)) == color(1) == (11, 203, 65)


def test_samples_are_spread_evenly_over_the_set(tmp_path):
    folder = write_toys(tmp_path / "set", 10, shard_size=5)
    assert preview(folder, tmp_path / "look.html", 3) == (3, [])
    page = (tmp_path / "look.html").read_text()
    assert [n for n in range(10) if f"<small>k{n}</small>" in page] == [0, 3, 6]
    assert preview(folder, tmp_path / "all.html") == (10, [])
