"""Photographs that cannot be used."""

import pytest
from PIL import Image, PngImagePlugin
from support.raw_files import photo

from relvlm.data.sources import raw
from relvlm.data.sources.item import FilePhoto
from relvlm.errors import UserError


def test_a_photo_that_is_no_photo_is_listed(tmp_path):
    (tmp_path / "7.jpg").write_bytes(b"\xff\xd8\xff rubbish")
    with pytest.raises(raw.PhotoFault, match=r"7\.jpg: not a readable JPEG, PNG or WebP"):
        raw.photo_size("7.jpg", FilePhoto("7.jpg", (tmp_path,)).read())


def test_a_png_with_an_oversized_text_is_one_photo_left_out(tmp_path):
    text = PngImagePlugin.PngInfo()
    text.add_text("note", "x" * 2_000_000, zip=True)
    Image.new("RGB", (8, 6)).save(tmp_path / "7.png", pnginfo=text)
    with pytest.raises(raw.PhotoFault, match=r"7\.png: not a readable JPEG, PNG or WebP: .*too large"):
        raw.photo_size("7.png", FilePhoto("7.png", (tmp_path,)).read())


def test_two_folders_may_hold_the_same_photo_and_not_two_of_one_name(tmp_path):
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        photo(folder / "7.jpg")
    assert raw.photo_size("7.jpg", FilePhoto("7.jpg", tuple(folders)).read()) == (40, 30)
    photo(folders[1] / "7.jpg", (30, 40))
    with pytest.raises(raw.PhotoFault, match=r"7\.jpg: is another photo in each folder"):
        FilePhoto("7.jpg", tuple(folders)).read()


@pytest.mark.parametrize("name", ["x" * 300, "a\nb", "\ud800", "", ".", "a\0b"])
def test_an_odd_file_name_is_one_photo_left_out(tmp_path, name):
    with pytest.raises(raw.PhotoFault):
        FilePhoto(name, (tmp_path,)).read()


@pytest.mark.parametrize("content", ["[" * 100_000, "{} {}", "\ud800"])
def test_json_that_cannot_be_read_is_one_error(tmp_path, content):
    (tmp_path / "a.json").write_text(content, errors="surrogatepass")
    with pytest.raises(UserError, match=r"a\.json: not valid JSON"):
        raw.load_json(tmp_path / "a.json", list)
