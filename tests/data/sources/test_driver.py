"""A build that is interrupted goes on where it was, and ends as one that was not; so does one by more processes."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from PIL import Image
from support.raw_files import dump, gqa_graph, photo, run

from relvlm.data.shards.store import ShardSet
from relvlm.data.sources import coco, driver, gqa, open_images, records, shard_task, visual_genome, workers
from relvlm.data.sources.driver import Driver, Options
from relvlm.data.sources.faults import Faults
from relvlm.data.sources.spool import Spool
from relvlm.errors import UserError

COUNT = 11


def files(folder, count=COUNT):
    """GQA files of `count` photos, the fourth of which is corrupt and the sixth gone, and an object without a name."""
    graphs = {str(n): gqa_graph() for n in range(count)}
    graphs["2"]["objects"]["9"]["name"] = None
    for n in range(count):
        photo(folder / "images" / f"{n}.jpg")
    (folder / "images" / "3.jpg").write_bytes(b"\xff\xd8\xff rubbish")
    (folder / "images" / "5.jpg").unlink()
    return "--scene-graphs", dump(folder / "graphs.json", graphs), "--images", folder / "images", "--shard-size", 2


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def fails_at(monkeypatch, shard):
    """Make the shard of this number end the build, as a full disk would."""
    real = shard_task.make_shard

    def make(maker, number, items):
        if number == shard:
            raise OSError(28, "No space left on device")
        return real(maker, number, items)

    monkeypatch.setattr(workers, "make_shard", make)


def test_two_processes_make_what_one_makes(tmp_path):
    flags = files(tmp_path)
    (tmp_path / "images" / "1.jpg").unlink()
    run(gqa, *flags, "--out", tmp_path / "one")
    run(gqa, *flags, "--out", tmp_path / "two", "--processes", 2)
    assert content(tmp_path / "one") == content(tmp_path / "two")
    assert len(ShardSet(tmp_path / "one")) == COUNT - 3
    skipped = content(tmp_path / "one")["skipped.txt"].decode().splitlines()
    assert [line.partition(":")[0] for line in skipped] == ["1.jpg", "3.jpg", "5.jpg"]


def test_a_build_goes_on_where_it_was_and_leaves_nothing(tmp_path, monkeypatch):
    flags = files(tmp_path)
    run(gqa, *flags, "--out", tmp_path / "whole")
    with monkeypatch.context() as broken:
        fails_at(broken, 3)
        with pytest.raises(OSError):
            run(gqa, *flags, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    made = []
    real = shard_task.make_shard
    monkeypatch.setattr(workers, "make_shard", lambda m, number, items: made.append(number) or real(m, number, items))
    run(gqa, *flags, "--out", tmp_path / "out")
    assert made == [3, 4]
    assert content(tmp_path / "out") == content(tmp_path / "whole")
    assert {path.name for path in tmp_path.iterdir()} == {"graphs.json", "images", "out", "whole"}


def spooling_source(folder, name):
    """COCO, Visual Genome or Open Images: flags of `COUNT` photos, with an annotation each that names none of them."""
    for n in range(COUNT):
        photo(folder / "images" / f"{n}.jpg")
    boxes = [{"id": n, "image_id": n, "category_id": 1, "bbox": [1, 2, 9, 9]} for n in range(COUNT + 1)]
    images = [{"id": n, "file_name": f"{n}.jpg", "width": 40, "height": 30} for n in range(COUNT)]
    coco_file = dump(
        folder / "a.json", {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "x"}]}
    )
    ends = [{"object_id": n, "name": "x", "x": 1, "y": 2, "w": 9, "h": 9} for n in range(2)]
    relation = {"subject": ends[0], "predicate": "on", "object": ends[1]}
    graphs = [{"image_id": n, "relationships": [relation]} for n in [*range(COUNT), None]]
    rows = [f"{n},/m/0,0.1,0.9,0.1,0.9\n" for n in [*range(COUNT), ""]]
    (folder / "boxes.csv").write_text("ImageID,LabelName,XMin,XMax,YMin,YMax\n" + "".join(rows))
    (folder / "labels.csv").write_text("/m/0,x\n")
    flags = {
        "coco": (coco, "--instances", coco_file),
        "vg": (visual_genome, "--relationships", dump(folder / "vg.json", graphs)),
        "open_images": (open_images, "--boxes", folder / "boxes.csv", "--labels", folder / "labels.csv"),
    }
    return *flags[name], "--images", folder / "images", "--shard-size", 2, "--max-faults", ".1"


@pytest.mark.parametrize("name", ["coco", "vg", "open_images"])
def test_what_was_put_together_by_image_is_not_put_together_again(tmp_path, monkeypatch, name):
    source = spooling_source(tmp_path, name)
    run(*source, "--out", tmp_path / "whole")
    assert "1 of 12" in content(tmp_path / "whole")["build.log"].decode()
    with monkeypatch.context() as broken:
        fails_at(broken, 3)
        with pytest.raises(OSError):
            run(*source, "--out", tmp_path / "out")
    assert (tmp_path / ".out.building" / "journal" / "spool").is_file()
    put = []
    monkeypatch.setattr(Spool, "put", lambda *of: put.append(of))
    run(*source, "--out", tmp_path / "out")
    assert not put and content(tmp_path / "out") == content(tmp_path / "whole")


def test_faults_of_a_shard_end_a_build_early_with_those_of_its_items(tmp_path, monkeypatch):
    monkeypatch.setattr(driver, "EARLY", 2)
    photo(tmp_path / "images" / "a.jpg")
    (tmp_path / "images" / "b.jpg").write_bytes(b"rubbish")
    lines = [{"image": "a.jpg", "caption": "x"}, {"image": "b.jpg"}, *[{"image": "a.jpg"}] * 9]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    flags = ("--jsonl", tmp_path / "a.jsonl", "--images", tmp_path / "images", "--max-faults", 0, "--shard-size", 2)
    told = "records: 1 of 2 image records, 1 of 2 photo records cannot be used"
    with pytest.raises(UserError, match=told):
        run(records, *flags, "--out", tmp_path / "out")


@pytest.mark.parametrize("change", ["file", "shard size", "predicates", "test photos"])
def test_a_build_goes_on_with_its_own_input_alone(tmp_path, monkeypatch, change):
    predicates, test_photos = tmp_path / "predicates.txt", tmp_path / "test"
    predicates.write_text("riding\n")
    test_photos.mkdir()
    Image.linear_gradient("L").rotate(90).save(test_photos / "a.jpg")
    flags = list(files(tmp_path))
    flags[-2:-2] = "--relations", predicates, "--unlike", test_photos
    with monkeypatch.context() as broken:
        fails_at(broken, 3)
        with pytest.raises(OSError):
            run(gqa, *flags, "--out", tmp_path / "out")
    if change == "file":
        dump(tmp_path / "graphs.json", {"1": gqa_graph()})
    elif change == "predicates":
        predicates.write_text("to the left of\n")
    elif change == "test photos":
        photo(test_photos / "b.jpg")
    else:
        flags[-1] = 3
    with pytest.raises(UserError, match=r"begun with other input or arguments: (files|shard_size|relations|unlike) "):
        run(gqa, *flags, "--out", tmp_path / "out")
    assert (tmp_path / ".out.building").exists()


def test_a_shard_of_other_photos_is_made_anew(tmp_path, monkeypatch):
    flags = files(tmp_path)
    with monkeypatch.context() as broken:
        fails_at(broken, 3)
        with pytest.raises(OSError):
            run(gqa, *flags, "--out", tmp_path / "out")
    photo(tmp_path / "images" / "5.jpg")
    run(gqa, *flags, "--out", tmp_path / "out")
    run(gqa, *flags, "--out", tmp_path / "whole")
    assert content(tmp_path / "out") == content(tmp_path / "whole")


@pytest.mark.parametrize("lost", ["index", "its count"])
def test_a_shard_without_its_index_is_made_anew(tmp_path, monkeypatch, lost):
    """Also one that a version made which knew of none."""
    flags = files(tmp_path)
    run(gqa, *flags, "--out", tmp_path / "whole")
    with monkeypatch.context() as broken:
        fails_at(broken, 3)
        with pytest.raises(OSError):
            run(gqa, *flags, "--out", tmp_path / "out")
    unfinished = tmp_path / ".out.building"
    if lost == "index":
        (unfinished / "000001.idx.npy").unlink()
    else:
        journal = unfinished / "journal" / "000001.json"
        entry = json.loads(journal.read_text())
        del entry["shard"]["relations"]
        journal.write_text(json.dumps(entry))
    made, real = [], shard_task.make_shard
    monkeypatch.setattr(workers, "make_shard", lambda m, number, items: made.append(number) or real(m, number, items))
    run(gqa, *flags, "--out", tmp_path / "out")
    assert made == [1, 3, 4] and content(tmp_path / "out") == content(tmp_path / "whole")


def test_an_end_between_the_manifest_and_the_name_is_made_up_for(tmp_path, monkeypatch):
    flags = files(tmp_path)
    run(gqa, *flags, "--out", tmp_path / "whole")
    (tmp_path / ".out.building").mkdir()
    for name, data in content(tmp_path / "whole").items():
        (tmp_path / ".out.building" / name).write_bytes(data)
    fails_at(monkeypatch, 0)
    run(gqa, *flags, "--out", tmp_path / "out")
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_two_builds_of_one_set_do_not_meet(tmp_path):
    import fcntl

    flags = files(tmp_path)
    with (tmp_path / ".out.building.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another build is at work"):
            run(gqa, *flags, "--out", tmp_path / "out")


@pytest.mark.slow
def test_a_build_killed_at_any_moment_ends_the_same(tmp_path):
    flags = [str(flag) for flag in files(tmp_path, 60)]
    run(gqa, *flags, "--out", tmp_path / "whole")
    command = [sys.executable, "-m", "relvlm.cli", "data", "build", "gqa", *flags, "--processes", "2"]
    command += ["--out", str(tmp_path / "out")]
    journal = tmp_path / ".out.building" / "journal"
    build = subprocess.Popen(command)
    while build.poll() is None and len(list(journal.glob("0*.json"))) < 3:
        time.sleep(0.002)
    os.kill(build.pid, signal.SIGKILL)
    assert build.wait() == -signal.SIGKILL
    assert subprocess.run(command).returncode == 0
    assert content(tmp_path / "out") == content(tmp_path / "whole")
    assert {path.name for path in tmp_path.iterdir()} == {"graphs.json", "images", "out", "whole"}


def test_a_webp_becomes_a_jpeg_of_its_size(tmp_path):
    flags = files(tmp_path)
    Image.new("RGB", (40, 30), "red").save(tmp_path / "images" / "0.jpg", "WEBP")
    run(gqa, *flags, "--out", tmp_path / "out")
    record = ShardSet(tmp_path / "out").read(0)
    assert record.image.startswith(b"\xff\xd8\xff") and record.sample.width == 40


@pytest.mark.parametrize("key", ["a/b", "é", "x" * 300, "\ud800", "", "a.b", "."])
def test_keys_of_any_characters_are_told_apart(key):
    safe = shard_task.safe_key(key)
    assert shard_task._KEY.fullmatch(safe) and safe != shard_task.safe_key(key + "2")


def test_a_plain_key_stays():
    assert shard_task.safe_key("000042") == "000042"


def test_the_overlap_is_left_out_and_counted_and_need_not_be_there(tmp_path):
    files(tmp_path)
    source = gqa.Gqa(tmp_path / "graphs.json", tmp_path / "images")
    options = Options(overlap=["VG_100K/7.jpg", "VG_100K/70.jpg", "val2014/COCO_val2014_000000000001.jpg"])
    manifest, _ = Driver(source, Faults("gqa"), options).build(tmp_path / "out")
    assert manifest["builder"]["arguments"]["overlap"] == {"entries": 3, "images": 1, "not_found": 2}
    shards = ShardSet(tmp_path / "out")
    assert {shards.read(i).sample.image_id for i in range(len(shards))} == set("01246") | {"8", "9", "10"}


def test_the_progress_line_says_rate_and_time_left(tmp_path):
    from relvlm.data.sources.meter import Meter, Progress

    meter = Meter()
    meter.total, meter.done = 100, 25
    progress = Progress(tmp_path / "log", "gqa", meter)
    progress._start -= 30
    progress.add(600, made_before=False)
    progress.add(900, made_before=True)
    progress.close()
    assert (tmp_path / "log").read_text() == "gqa: 1500 images, 20/s, 25% read, 0:01:30 left\n"


def test_the_manifest_says_nothing_of_the_processes(tmp_path):
    run(gqa, *files(tmp_path), "--out", tmp_path / "out", "--processes", 2)
    assert "processes" not in json.loads((tmp_path / "out" / "manifest.json").read_text())["builder"]["arguments"]
