"""One image under many spellings; lists of images, and what of them meant no image."""

import pytest

from relvlm.data.image_ids import ImageList, image_id, read_image_list
from relvlm.errors import UserError

FORTY_TWO = [
    "42",
    42,
    "000000000042",
    "000000000042.jpg",
    "000000000042.JPEG",
    "COCO_val2014_000000000042",
    "COCO_val2014_000000000042.jpg",
    "val2014/COCO_val2014_000000000042.jpg",
    "C:\\coco\\val2017\\000000000042.jpg",
    "http://images.cocodataset.org/val2017/000000000042.jpg",
    "42.0",
]


@pytest.mark.parametrize("spelling", FORTY_TWO)
@pytest.mark.parametrize("asked", FORTY_TWO)
def test_an_id_is_the_same_in_every_spelling(spelling, asked):
    assert ImageList([spelling], "coco").has(asked)


@pytest.mark.parametrize("other", ["420", "4", "dog_42.jpg", "COCO_val2014_000000000043.jpg", "n42", "42.5", "-42", ""])
def test_other_ids_are_other_images(other):
    assert not ImageList(["42"], "coco").has(other)


def test_zero_is_an_id():
    assert image_id("000000000000.jpg").id == image_id(0).id == "0"


def test_a_number_counts_within_its_dataset():
    assert not ImageList(["COCO_val2014_000000000042.jpg"], "visual_genome").has(42)
    assert not ImageList(["VG_100K/42.jpg"], "coco").has(42)
    assert ImageList(["VG_100K_2/42.jpg", "42"], "visual_genome").has("42")


def test_a_file_name_means_the_photo_and_a_number_the_id():
    renumbered = {"name": 1, "file": "000000000042.jpg"}
    assert ImageList(["000000000042.jpg"], "coco").has(**renumbered)
    assert ImageList(["1"], "coco").has(**renumbered)
    assert not ImageList(["42"], "coco").has(**renumbered)
    assert not ImageList(["1.jpg"], "coco").has(**renumbered)


def test_counts_tell_hits_from_entries():
    images = ImageList(["1", "01.jpg", "7", "dog"], "coco")
    assert [images.has(n) for n in (1, 2)] == [True, False]
    assert images.counts() == {"entries": 4, "images": 1, "not_found": 2}
    assert images.check("--exclude", "a.json") == (
        "--exclude: 2 of 4 entries name no image of a.json, such as '7', 'dog'"
    )


def test_a_list_that_means_no_image_at_all_is_an_error():
    images = ImageList(["7", "8"], "coco")
    images.has(1)
    with pytest.raises(UserError, match=r"--exclude: 2 of 2 entries name no image of a\.json, such as '7', '8'"):
        images.check("--exclude", "a.json")


@pytest.mark.parametrize(
    "data",
    [
        b"42\n7.jpg\n",
        b"\xef\xbb\xbf42\r\n7.jpg\r\n",
        "42\n\n 7.jpg ".encode("utf-16"),
        b'[42, "7.jpg"]',
        b'\xef\xbb\xbf\n[42,\n"7.jpg"]',
    ],
    ids=["plain", "mark", "utf-16", "json", "json with mark"],
)
def test_a_list_is_read_whatever_its_encoding(tmp_path, data):
    (tmp_path / "ids").write_bytes(data)
    assert read_image_list(tmp_path / "ids", "--exclude") == ["42", "7.jpg"]


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"", "empty"), (b"\n \n", "empty"), (b"\xff\x00", "no list"), (b"[1,", "no list"), (b"[null]", r"\[0\]: None")],
)
def test_what_is_no_list_is_one_error(tmp_path, data, message):
    (tmp_path / "ids").write_bytes(data)
    with pytest.raises(UserError, match=f"ids: .*{message}.*check --exclude"):
        read_image_list(tmp_path / "ids", "--exclude")


def test_a_missing_list_is_one_error(tmp_path):
    with pytest.raises(UserError, match=r"ids: cannot be read.*check --overlap"):
        read_image_list(tmp_path / "ids", "--overlap")


def test_names_are_lines_and_only_line_feeds_end_them(tmp_path):
    (tmp_path / "ids").write_text("a b\u2028c.jpg\n", encoding="utf-8")
    assert read_image_list(tmp_path / "ids", "--exclude") == ["a b\u2028c.jpg"]
