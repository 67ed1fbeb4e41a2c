"""Images that are found by an annotation's name, and those that must not be taken for another's."""

from pathlib import Path

import pytest

from relvlm.errors import UserError
from relvlm.evals.images import COCO, DATA_SETS, Images, find_image, locate


def folder(tmp_path: Path, *files: str) -> Path:
    for file in files:
        path = tmp_path / "photos" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "photos"


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("COCO_val2014_000000551780.jpg", "000000551780.jpg"),
        ("COCO_val2014_000000551780.jpg", "train2017/000000551780.jpg"),
        ("COCO_test2014_000000551780.jpg", "photos/000000551780.jpg"),
        ("val2014/COCO_val2014_000000551780.jpg", "val2017/000000551780.jpg"),
        ("val2014/000000551780.jpg", "000000551780.jpg"),
        ("v7w_2.jpg", "VG_100K_2/2.jpg"),
        ("v7w_2.jpg", "2.jpg"),
        ("2.jpg", "VG_100K_2/2.jpg"),
        ("flickr30k-images/1007129816.jpg", "1007129816.jpg"),
        ("admiring_2.jpg", "swig/admiring_2.jpg"),
        ("VisualDialog_val2018_000000006446.jpg", "visdial/VisualDialog_val2018_000000006446.jpg"),
        ("000000006446.jpg", "coco/000000006446.jpg"),
    ],
)
def test_a_photo_of_the_same_data_set_is_found_and_listed(tmp_path: Path, name: str, file: str) -> None:
    photos = folder(tmp_path, file)
    assert locate(photos, [name]) == Images({name: photos / file}, {name: file}, (), {})


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("admiring_2.jpg", "VG_100K_2/2.jpg"),
        ("admiring_2.jpg", "2.jpg"),
        ("VisualDialog_val2018_000000006446.jpg", "train2017/000000006446.jpg"),
        ("VisualDialog_val2018_000000006446.jpg", "000000006446.jpg"),
        ("COCO_train2017_000000006446.jpg", "000000006446.jpg"),
        ("COCO_val2014_7.jpg", "VG_100K/7.jpg"),
        ("COCO_val2014_a.jpg", "a.jpg"),
        ("v7w_2.jpg", "svo/2.jpg"),
        ("v7w_a.jpg", "a.jpg"),
        ("svo/2.jpg", "VG_100K/2.jpg"),
        ("a/b.jpg", "b.jpg"),
        ("a/b.jpg", "c/b.jpg"),
        ("val2014/2.jpg", "2.jpg"),
        ("VG_100K/000000006446.jpg", "train2017/000000006446.jpg"),
        ("a.jpg", "val2014/a.jpg"),
        ("a.jpg", "a/b/a.jpg"),
        ("a.JPG", "a.JPG.png"),
        ("7", "77.jpg"),
    ],
)
def test_a_photo_of_another_name_is_missing(tmp_path: Path, name: str, file: str) -> None:
    photos = folder(tmp_path, file)
    assert locate(photos, [name]) == Images({}, {}, (name,), {})
    assert find_image(photos, name) is None


def test_a_task_looks_in_the_folders_of_its_own_data_sets_alone(tmp_path: Path) -> None:
    photos = folder(tmp_path, "VG_100K/7.jpg")
    assert find_image(photos, "7") == find_image(photos, "7", DATA_SETS) == photos / "VG_100K/7.jpg"
    assert find_image(photos, "7", ()) is find_image(photos, "7", (COCO,)) is None


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("COCO_val2014_000000551780.jpg", ["train2017/000000551780.jpg", "val2017/000000551780.jpg"]),
        ("v7w_2.jpg", ["VG_100K/2.jpg", "VG_100K_2/2.jpg"]),
        ("a.jpg", ["b/a.jpg", "c/a.jpg"]),
        ("a", ["a.jpg", "a.png"]),
    ],
)
def test_where_several_files_fit_none_is_taken(tmp_path: Path, name: str, files: list[str]) -> None:
    photos = folder(tmp_path, *files)
    assert locate(photos, [name]) == Images({}, {}, (), {name: ", ".join(files)})
    assert find_image(photos, name) is None


def test_the_very_name_goes_before_all_others_and_is_not_listed(tmp_path: Path) -> None:
    photos = folder(tmp_path, "v7w_2.jpg", "2.jpg", "VG_100K/2.jpg", "VG_100K/v7w_2.jpg")
    assert locate(photos, ["v7w_2.jpg"]) == Images({"v7w_2.jpg": photos / "v7w_2.jpg"}, {}, (), {})
    (photos / "v7w_2.jpg").unlink()
    assert find_image(photos, "v7w_2.jpg") == photos / "VG_100K/v7w_2.jpg"


def test_a_name_may_begin_with_the_folders_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = folder(tmp_path, "a.jpg")
    assert locate(photos, ["photos/a.jpg"]).paths == {"photos/a.jpg": photos / "a.jpg"}
    monkeypatch.chdir(photos)
    assert find_image(Path(), "photos/a.jpg") == photos / "a.jpg"


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".png", ".webp"])
def test_an_id_without_suffix_may_have_any(tmp_path: Path, suffix: str) -> None:
    photos = folder(tmp_path, f"77{suffix}")
    assert locate(photos, ["77"]) == Images({"77": photos / f"77{suffix}"}, {}, (), {})


def test_a_name_that_no_file_can_have_is_missing(tmp_path: Path) -> None:
    names = ["a" * 5000, "a\0b", "."]
    assert locate(folder(tmp_path, "a.jpg"), names).missing == tuple(names)


def test_a_folder_of_images_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        find_image(tmp_path / "none", "a")
