"""What every builder does with faults: left out and listed, or the end of the build with nothing written."""

import json

import pytest
from support.raw_files import dump, gqa_graph, photo, run

from relvlm.data.shards.store import ShardSet
from relvlm.data.sources import gqa
from relvlm.errors import UserError


def graphs(folder, good, bad):
    """GQA files of `good` sound images and `bad` without a width; flags of the builder."""
    content = {str(n): gqa_graph() for n in range(good + bad)}
    for n in range(good, good + bad):
        content[str(n)]["width"] = None
    for n in range(good + bad):
        photo(folder / "images" / f"{n}.jpg")
    return ("--scene-graphs", dump(folder / "graphs.json", content), "--images", folder / "images")


def test_faulty_records_are_left_out_listed_and_told(tmp_path, capsys):
    assert run(gqa, *graphs(tmp_path, 3, 1), "--out", tmp_path / "out") == 0
    assert len(ShardSet(tmp_path / "out")) == 3
    log = (tmp_path / "out" / "build.log").read_text()
    assert "1 of 4 image records left out, faulty: width: no number of pixels\n" in log
    assert log.endswith("image 3: width: no number of pixels: None\n")
    err = capsys.readouterr().err
    assert "image 3: width: no number of pixels: None" in err and "build.log" in err


@pytest.mark.parametrize(("good", "bad", "flags"), [(1, 4, ()), (0, 1, ()), (200, 1, ("--max-faults", "0"))])
def test_too_many_faults_end_the_build_and_leave_nothing(tmp_path, good, bad, flags):
    made = graphs(tmp_path, good, bad)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UserError, match=rf"gqa: {bad} of {good + bad} image records cannot be used"):
        run(gqa, *made, "--out", tmp_path / "out", *flags)
    assert sorted(tmp_path.iterdir()) == before


def test_max_faults_may_allow_more(tmp_path):
    assert run(gqa, *graphs(tmp_path, 1, 4), "--out", tmp_path / "out", "--max-faults", "0.8") == 0
    assert len(ShardSet(tmp_path / "out")) == 1


@pytest.mark.parametrize("share", ["-0.1", "1.1", "nan", "few"])
def test_max_faults_is_a_share(tmp_path, capsys, share):
    with pytest.raises(SystemExit):
        run(gqa, *graphs(tmp_path, 1, 0), "--out", tmp_path / "out", "--max-faults", share)
    assert "is no share from 0 to 1" in capsys.readouterr().err


def test_a_corrupt_photo_is_a_fault_and_a_missing_one_is_not(tmp_path):
    flags = graphs(tmp_path, 6, 0)
    for n in range(4):
        (tmp_path / "images" / f"{n}.jpg").unlink()
    run(gqa, *flags, "--out", tmp_path / "part", "--max-faults", "0")
    (tmp_path / "images" / "4.jpg").write_bytes(b"\xff\xd8\xff rubbish")
    with pytest.raises(UserError, match="1 of 2 photo records cannot be used"):
        run(gqa, *flags, "--out", tmp_path / "out", "--max-faults", "0")


def test_a_sound_build_has_no_log(tmp_path):
    folder = tmp_path / "images"
    photo(folder / "1.jpg")
    content = dump(tmp_path / "graphs.json", {"1": {"width": 40, "height": 30, "objects": {}}})
    run(gqa, "--scene-graphs", content, "--images", folder, "--out", tmp_path / "out")
    assert not (tmp_path / "out" / "build.log").exists()
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["builder"]["arguments"]["excluded"] == {"entries": 0, "images": 0, "not_found": 0}


def test_an_output_folder_that_cannot_be_made_is_one_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"out: cannot be made: Not a directory \(choose another --out\)"):
        run(gqa, *graphs(tmp_path, 1, 0), "--out", tmp_path / "file" / "out")


def test_photos_that_are_all_missing_end_the_build_with_the_first(tmp_path):
    flags = graphs(tmp_path, 2, 0)
    for n in range(2):
        (tmp_path / "images" / f"{n}.jpg").unlink()
    with pytest.raises(UserError, match=r"images: none of the 2 photos can be used, first: .*0\.jpg"):
        run(gqa, *flags, "--out", tmp_path / "out")
