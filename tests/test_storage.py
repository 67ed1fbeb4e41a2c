"""What cannot be written is one line: where, why, and how much room there is."""

import errno
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from relvlm import storage
from relvlm.errors import UserError
from relvlm.storage import DiskError, check_folder, gigabytes, writing


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "[Errno 28] No space left on device"),
        (OSError(errno.EROFS, "Read-only file system", "x"), "[Errno 30] Read-only file system: 'x'"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "[Errno 122] Disk quota exceeded"),
        (
            RuntimeError("[enforce fail] PytorchStreamWriter failed writing file data/3\nframe #0"),
            "[enforce fail] Pyto",
        ),
        (Exception("Error while serializing: I/O error: File too large (os error 27)"), "Error while serializing"),
    ],
)
def test_a_failure_to_write_is_one_line(tmp_path, monkeypatch, error, reason):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1_250_000_000))
    with pytest.raises(DiskError) as caught, writing(tmp_path / "run", "out", needed=4_000_000):
        raise error
    said = str(caught.value)
    assert said.startswith(f"out: {tmp_path / 'run'}: cannot be written: {reason}") and "\n" not in said
    assert "(needs about 4.0 MB, 1.25 GB free there; make room, or set another `out`)" in said
    assert isinstance(caught.value, UserError) and isinstance(caught.value, OSError)


@pytest.mark.parametrize("error", [RuntimeError("mat1 and mat2"), ValueError("x"), KeyError("y")])
def test_other_errors_come_through(tmp_path, error):
    with pytest.raises(type(error)) as caught, writing(tmp_path):
        raise error
    assert caught.value is error


def test_a_failure_is_told_once_by_who_saw_it_first(tmp_path):
    with pytest.raises(DiskError) as caught, writing(tmp_path / "a"), writing(tmp_path / "b"):
        raise OSError(errno.ENOSPC, "full")
    assert str(caught.value).startswith(f"{tmp_path / 'b'}: ") and f"{tmp_path / 'a'}:" not in str(caught.value)


def test_a_folder_to_come_needs_a_folder_above_it(tmp_path, monkeypatch):
    check_folder(tmp_path / "a/b", "out")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=rf"^out: {tmp_path}/file/b: {tmp_path}/file is a file"):
        check_folder(tmp_path / "file/b", "out")
    monkeypatch.setattr(storage.os, "access", lambda *_: False)
    with pytest.raises(UserError, match=rf"^out: {tmp_path}/a: {tmp_path} cannot be written"):
        check_folder(tmp_path / "a", "out")


def test_a_small_file_is_the_old_one_or_the_new_one(tmp_path, monkeypatch):
    path = tmp_path / "latest"
    storage.write_whole(path, "old")
    with monkeypatch.context() as broken, pytest.raises(OSError):
        broken.setattr(Path, "write_text", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
        storage.write_whole(path, "new")
    assert path.read_text() == "old"
    storage.write_whole(path, "new")
    assert path.read_text() == "new" and [p.name for p in tmp_path.iterdir()] == ["latest"]


@pytest.mark.parametrize(("count", "words"), [(999_949_999, "999.9 MB"), (10**9, "1.00 GB"), (0, "0.0 MB")])
def test_bytes_in_words(count, words):
    assert gigabytes(count) == words


def test_a_folder_is_as_large_as_its_files(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/b").write_bytes(b"123")
    (tmp_path / "c").write_bytes(b"45")
    assert storage.size(tmp_path) == 5


def test_files_below_a_folder_are_also_those_of_linked_folders(tmp_path):
    top, other = tmp_path / "top", tmp_path / "other/deep"
    for path in (top / "b/2", top / "a", other / "1"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    (top / "linked").symlink_to(tmp_path / "other")
    (top / "again").symlink_to(tmp_path / "other")
    (tmp_path / "other/back").symlink_to(top)
    (top / "gone").symlink_to(tmp_path / "nowhere")
    found = [str(path.relative_to(top)) for path in storage.files_below(top)]
    assert found == ["a", "again/deep/1", "b/2", "linked/deep/1"]
