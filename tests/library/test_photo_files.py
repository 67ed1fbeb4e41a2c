"""Photos and texts as they may be named."""

import io
from pathlib import Path

import pytest

from relvlm.errors import UserError
from relvlm.library.photo_files import photos_of, texts_of


@pytest.fixture()
def folder(tmp_path: Path) -> Path:
    for name in ("b.jpg", "a.PNG", "sub/c.jpeg", "notes.txt", ".hidden.jpg", "d.webp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path


def names(paths: list[Path], folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in paths]


def test_a_folder_is_its_photos_at_any_depth_sorted(folder: Path) -> None:
    assert names(photos_of([folder]), folder) == ["a.PNG", "b.jpg", "sub/c.jpeg"]


def test_photos_of_linked_folders_count(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    here = tmp_path_factory.mktemp("here")
    (here / "photos").symlink_to(folder)
    assert names(photos_of([here]), here) == ["photos/a.PNG", "photos/b.jpg", "photos/sub/c.jpeg"]


def test_photos_folders_and_lists_may_be_mixed_and_count_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    Path("list.txt").write_text("b.jpg\n\n  sub/c.jpeg  \n")
    found = photos_of([Path("b.jpg"), Path("list.txt"), Path("sub")])
    assert [str(path) for path in found] == ["b.jpg", "sub/c.jpeg"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none", "none: no such photo, folder or list"),
        ("none.jpg", "none.jpg: no such photo"),
        ("empty", "empty: no photo in it"),
        ("list.txt", "list.txt: gone.jpg: no such photo"),
    ],
)
def test_what_is_not_there_is_named(folder: Path, name: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    Path("empty").mkdir()
    Path("list.txt").write_text("b.jpg\ngone.jpg\n")
    with pytest.raises(UserError, match=message):
        photos_of([Path(name)])


def test_texts_are_the_lines_that_are_not_blank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "texts").write_bytes("\ufeffa man\r\n\n  é; dog \n".encode())
    assert texts_of(str(tmp_path / "texts")) == ["a man", "é; dog"]
    monkeypatch.setattr("sys.stdin", io.StringIO("one\ntwo"))
    assert texts_of("-") == ["one", "two"]


def test_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "texts").write_text("\n \n")
    with pytest.raises(UserError, match="no text in it"):
        texts_of(str(tmp_path / "texts"))
    with pytest.raises(UserError, match="none: no such file"):
        texts_of(str(tmp_path / "none"))
