"""Parquet files of images and captions."""

import sys

import pytest
from support.raw_files import encoded, run

from relvlm.data.shards.store import ShardSet
from relvlm.data.sources import parquet
from relvlm.errors import UserError


def rows(path, captions, groups=2, bytes_alone=False):
    pa = pytest.importorskip("pyarrow")
    images = [encoded(color=color) for color in ("red", "blue", "green", "white")[: len(captions)]]
    cells = images if bytes_alone else [{"bytes": image, "path": "a.jpg"} for image in images]
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"image": cells, "caption": captions}), path, row_group_size=groups)
    return path, images


def samples(folder):
    shards = ShardSet(folder)
    return [shards.read(i) for i in range(len(shards))]


@pytest.mark.parametrize("bytes_alone", [False, True])
@pytest.mark.parametrize("processes", [1, 2])
def test_rows_become_samples_in_their_order(tmp_path, bytes_alone, processes):
    file, images = rows(tmp_path / "train-0.parquet", ["a", "b  c", "d", "e"], bytes_alone=bytes_alone)
    run(parquet, "--files", file, "--out", tmp_path / "out", "--processes", processes, "--shard-size", 3)
    found = samples(tmp_path / "out")
    assert [r.sample.captions for r in found] == [("a",), ("b c",), ("d",), ("e",)]
    assert [r.image for r in found] == images


def test_lists_of_captions_and_rows_without(tmp_path):
    file, _ = rows(tmp_path / "a.parquet", [["a", "b"], None, [" "], ["c"]])
    run(parquet, "--files", file, "--out", tmp_path / "out")
    assert [r.sample.captions for r in samples(tmp_path / "out")] == [("a", "b"), ("c",)]
    log = (tmp_path / "out" / "build.log").read_text()
    assert "faulty: caption: missing" in log and "by rule: caption: empty" in log


def test_another_column_or_file_is_one_error(tmp_path):
    file, _ = rows(tmp_path / "a.parquet", ["a"])
    with pytest.raises(UserError, match=r"no column 'text' \(it has image, caption\)"):
        run(parquet, "--files", file, "--captions", "text", "--out", tmp_path / "out")
    file.write_bytes(b"PAR1 no more")
    with pytest.raises(UserError, match=r"a\.parquet: cannot be read"):
        run(parquet, "--files", file, "--out", tmp_path / "out")


def test_two_files_of_one_name_are_refused(tmp_path, monkeypatch):
    """As the Hub's own conversion has them: train/0000.parquet, test/0000.parquet."""
    monkeypatch.setattr(parquet, "pyarrow_parquet", lambda: None)
    files = [tmp_path / split / "0000.parquet" for split in ("train", "test")]
    for file in files:
        file.parent.mkdir()
        file.write_bytes(b"")
    with pytest.raises(UserError, match=r"--files: 0000\.parquet is there twice"):
        run(parquet, "--files", *files, "--out", tmp_path / "out")


def test_without_pyarrow_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(UserError, match="pip install pyarrow"):
        run(parquet, "--files", tmp_path / "a.parquet", "--out", tmp_path / "out")
