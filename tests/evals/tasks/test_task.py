"""Images that are missing, and what is a dev split."""

from pathlib import Path

import pytest

from relvlm.errors import UserError
from relvlm.evals.tasks.task import Selection, find_images, is_dev, missing_images


@pytest.fixture()
def images(tmp_path: Path) -> Path:
    for name in "ab":
        (tmp_path / f"{name}.jpg").touch()
    return tmp_path


def test_all_images_are_found_once(images: Path) -> None:
    assert find_images(images, ["a", "b", "a"], False) == (
        {"a": images / "a.jpg", "b": images / "b.jpg"},
        [],
    )


def test_missing_images_are_refused_or_listed(images: Path) -> None:
    with pytest.raises(UserError, match=r"2 images missing: c, d \(add them"):
        find_images(images, ["a", "c", "d", "c"], False)
    assert find_images(images, ["a", "c"], True) == ({"a": images / "a.jpg"}, ["c"])


def test_no_image_at_all_is_refused_even_so(images: Path) -> None:
    with pytest.raises(UserError, match="1 images missing: c "):
        find_images(images, ["c"], True)


def test_five_missing_images_are_named(images: Path) -> None:
    with pytest.raises(UserError, match=r"5 images missing: c, d, e, f, g \("):
        find_images(images, "cdefg", False)
    with pytest.raises(UserError, match=r"6 images missing: c, d, e, f, g, \.\.\. \("):
        find_images(images, "cdefgh", False)


def test_what_is_missing_is_counted_and_named() -> None:
    assert missing_images([]) == {"images_missing": 0}
    assert missing_images(["a"]) == {"images_missing": 1, "scored": "available", "missing_images": ["a"]}


@pytest.mark.parametrize(("split", "dev"), [("val", True), ("dev", True), ("test", False), (None, False)])
def test_val_and_dev_are_dev_splits(split: str | None, dev: bool) -> None:
    assert is_dev({"split": split} if split else {}) == dev


def test_all_of_the_test_split_is_selected_by_the_protocol_unless_told_otherwise() -> None:
    chosen = Selection()
    assert (chosen.limit, chosen.k, chosen.split, chosen.available, chosen.overlap) == (
        0,
        0,
        "test",
        False,
        (),
    )
