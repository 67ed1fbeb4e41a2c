"""Galleries from three file formats, and parts of them."""

import json
from pathlib import Path

import pytest

from relvlm.errors import UserError
from relvlm.evals.tasks.gallery import Gallery, read, read_splits

WHOLE = Gallery(("val/a.jpg", "b.jpg", "c.jpg"), ("x", "y", "z", "w"), (0, 0, 1, 2))


def written(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content))
    return path


def record(name: str, split: str, *texts: str, **fields: str) -> dict:
    return {"filename": name, "split": split, "sentences": [{"raw": t} for t in texts], **fields}


def karpathy(folder: Path) -> Path:
    images = [
        record("a.jpg", "val", "x", filepath="val2014"),
        record("b.jpg", "test", "y", "z", filepath="val2014"),
        record("c.jpg", "test", "w"),
    ]
    return written(folder / "k.json", {"images": images, "dataset": "coco"})


def test_karpathys_split_and_folder_names(tmp_path: Path) -> None:
    path = karpathy(tmp_path)
    assert read(path) == Gallery(("val2014/b.jpg", "c.jpg"), ("y", "z", "w"), (0, 0, 1))
    assert read(path, "val") == Gallery(("val2014/a.jpg",), ("x",), (0,))
    assert read_splits(path) == {"val", "test"}
    with pytest.raises(UserError, match="split 'dev': no images"):
        read(path, "dev")


def test_albefs_list_has_one_caption_or_several(tmp_path: Path) -> None:
    path = written(tmp_path / "t.json", [{"image": "a", "caption": ["x", "y"]}, {"image": "b", "caption": "z"}])
    assert read(path) == Gallery(("a", "b"), ("x", "y", "z"), (0, 0, 1))
    assert read_splits(path) == set()


def paragraphs(folder: Path, ids: list[int], split: list[int]) -> Path:
    rows = [{"image_id": i, "url": "", "paragraph": f"text {i}"} for i in ids]
    written(folder / "test_split.json", split)
    return written(folder / "paragraphs_v1.json", rows)


def test_paragraphs_follow_the_split_file(tmp_path: Path) -> None:
    path = paragraphs(tmp_path, [1, 2, 3, 3], [3, 1])
    assert read(path) == Gallery(("3", "1"), ("text 1", "text 3", "text 3"), (1, 0, 0))
    assert read_splits(path) == {"test"}


def test_split_without_its_paragraphs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="image_id 9 of test_split"):
        read(paragraphs(tmp_path, [1], [1, 9, 7]))
    with pytest.raises(UserError, match="occurs twice"):
        read(paragraphs(tmp_path, [1], [1, 1]))


def test_image_listed_twice_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "t.json", [{"image": "a.jpg", "caption": "x"}] * 2)
    with pytest.raises(UserError, match=r"a\.jpg: occurs 2 times"):
        read(path)


@pytest.mark.parametrize("content", [[], [1], {"a": 1}, "text"])
def test_another_format_is_refused(tmp_path: Path, content: object) -> None:
    with pytest.raises(UserError, match="neither Karpathy's nor ALBEF's"):
        read(written(tmp_path / "t.json", content))
    assert read_splits(written(tmp_path / "t.json", content or {})) == set()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"images": [{"filename": "a"}]}, r"images\[0\]: split: absent"),
        ([{"caption": "a"}], r"\[0\]: image: absent"),
    ],
)
def test_a_record_without_a_field_is_named(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(written(tmp_path / "t.json", content))


def test_images_are_left_out_with_their_texts() -> None:
    assert WHOLE.without(["b.jpg"]) == Gallery(("val/a.jpg", "c.jpg"), ("x", "y", "w"), (0, 0, 1))
    assert WHOLE.without([]) == WHOLE
    assert WHOLE.first(2) == Gallery(("val/a.jpg", "b.jpg"), ("x", "y", "z"), (0, 0, 1))


def test_names_may_be_without_folder_and_suffix() -> None:
    assert WHOLE.without_named(["a", "b.jpg", "d"]).images == ("c.jpg",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"images": [record("a.jpg", "test")]}, r"images\[0\]: sentences: \[\] is no list"),
        ([{"image": "a.jpg", "caption": []}], r"\[0\]: caption: \[\] is no list of 1 or more texts"),
        ([{"image": "a.jpg", "caption": ["x", " "]}], r"\[0\]: caption\[1\]: is empty"),
        ({"images": [record("a.jpg", "test") | {"sentences": [{"tokens": ["a"]}]}]}, r"sentences\[0\]\.raw: absent"),
        ({"images": [record("../a.jpg", "test", "x")]}, r"filename: .* leads out"),
        ({"images": []}, "no examples in it"),
    ],
)
def test_an_image_needs_a_caption_and_each_is_a_text(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(written(tmp_path / "t.json", content))


@pytest.mark.parametrize("split", [[], {"a": 1}, [1.5], [None], [[1]]])
def test_a_split_file_is_a_list_of_ids(tmp_path: Path, split: object) -> None:
    with pytest.raises(UserError, match="test_split"):
        read(paragraphs(tmp_path, [1], split))  # type: ignore[arg-type]
