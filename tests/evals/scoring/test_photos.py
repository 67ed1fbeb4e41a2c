"""Pictures, whole or cropped, and the cache of their encodings."""

from pathlib import Path

import pytest
import torch
from PIL import Image

import relvlm
from relvlm.errors import UserError
from relvlm.evals.scoring.photos import ImageCache, Photo


@pytest.fixture()
def picture(tmp_path: Path) -> Path:
    image = Image.new("RGB", (8, 6), (255, 255, 255))
    image.putpixel((3, 2), (255, 0, 0))
    image.save(tmp_path / "a.png")
    return tmp_path / "a.png"


def test_a_box_is_cut_out(picture: Path) -> None:
    photo = Photo(picture, (3, 2, 5, 6))
    image = photo.open(photo.read(), 100)
    assert image.size == (2, 4) and image.getpixel((0, 0)) == (255, 0, 0)
    assert Photo(picture).open(photo.read(), 100).size == (8, 6)


def test_a_file_that_cannot_be_read_is_named(picture: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.png: No such file"):
        Photo(tmp_path / "none.png").read()
    with pytest.raises(UserError, match=r"a\.png: .*leave its rows out"):
        Photo(picture).open(b"no image", 100)
    with pytest.raises(UserError, match=r"a\.png"):
        Photo(picture).open(picture.read_bytes(), 47)  # of 48 pixels


@pytest.mark.parametrize(
    ("box", "fits"),
    [
        (None, True), ((0, 0, 8, 6), True), ((7, 5, 9, 9), True), ((-3, -3, 1, 1), True), ((8, 0, 9, 6), False),
        ((0, 6, 8, 7), False), ((-3, 0, 0, 6), False), ((0, -3, 8, 0), False), ((3, 2, 3, 6), False),
        ((3, 2, 5, 2), False),
    ],
)  # fmt: skip
def test_a_box_must_have_a_pixel_of_the_image(picture: Path, box: tuple, fits: bool) -> None:
    fault = Photo(picture, box).fault(48)
    assert fault is None if fits else fault.endswith("is outside of its 8x6 pixels")


def test_the_fault_of_a_file_is_said(picture: Path, tmp_path: Path) -> None:
    assert Photo(tmp_path / "none.png").fault(48) == "No such file or directory"
    assert "pixels" in Photo(picture).fault(47)
    picture.write_bytes(b"no image")
    assert Photo(picture).fault(48)


def test_a_crop_has_a_key_of_its_own_and_a_copy_has_not(tmp_path: Path) -> None:
    whole, crop = Photo(tmp_path / "a"), Photo(tmp_path / "a", (0, 0, 2, 2))
    assert whole.key(b"x") != crop.key(b"x") != crop.key(b"y")
    assert whole.key(b"x") == Photo(tmp_path / "b").key(b"x")


def test_what_was_put_is_found_again_under_the_same_context(tmp_path: Path) -> None:
    cache = ImageCache(tmp_path, "weights")
    assert cache.get("abcd") is None and cache.hits == 0
    cache.put("abcd", torch.arange(6.0).reshape(2, 3).T)
    assert torch.equal(cache.get("abcd"), torch.arange(6.0).reshape(2, 3).T)  # type: ignore[arg-type]
    assert cache.hits == 1 and cache.get("abce") is None
    assert ImageCache(tmp_path, "weights").get("abcd") is not None
    assert ImageCache(tmp_path, "others").get("abcd") is None


def test_files_are_spread_over_folders_and_none_is_left_over(tmp_path: Path) -> None:
    cache = ImageCache(tmp_path, "weights")
    cache.put("abcd", torch.ones(1))
    (file,) = (path for path in tmp_path.rglob("*") if path.is_file())
    assert file.parent.name == "ab" and file.name == "abcd.safetensors"
    assert len(file.parent.parent.name) == 16


def test_a_damaged_file_is_no_hit(tmp_path: Path) -> None:
    cache = ImageCache(tmp_path, "weights")
    cache.put("abcd", torch.ones(1))
    next(tmp_path.rglob("*.safetensors")).write_bytes(b"torn")
    assert cache.get("abcd") is None and cache.hits == 0


def test_nothing_else_in_evaluation_opens_images() -> None:
    package = Path(relvlm.__file__).parent / "evals"
    assert not [file.name for file in package.rglob("*.py") if "Image.open" in file.read_text()]
