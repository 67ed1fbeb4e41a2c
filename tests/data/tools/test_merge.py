import argparse
import io

import pytest
from PIL import Image

from relvlm.cli import main as relvlm
from relvlm.data.shards.schema import Entity, Relation, Sample
from relvlm.data.shards.store import ShardSet, write_shards
from relvlm.data.sources import workers
from relvlm.data.tools.merge import add_arguments, join, main
from relvlm.errors import UserError

CAT = Entity("1", "cat", (10, 20, 30, 40), ("grey",))
MAT = Entity("2", "mat", (0, 30, 100, 50))


def photo(width, height):
    buffer = io.BytesIO()
    Image.new("RGB", (width, height)).save(buffer, "PNG")
    return buffer.getvalue()


def annotated(number, source, **parts):
    return Sample(str(number), parts.pop("width", 100), parts.pop("height", 50), source, **parts)


def write(path, samples):
    encoded = [(f"k{s.image_id}", photo(s.width, s.height), s) for s in samples]
    write_shards(path, encoded, source=samples[0].source, builder_args={}, shard_size=2)
    return path


def merge(sets, out):
    """The manifest, and what build.log says was faulty."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    assert main(parser.parse_args([*map(str, sets), "--out", str(out)])) == 0
    log = out / "build.log"
    lines = log.read_text().splitlines() if log.exists() else []
    return ShardSet(out).manifest, [line for line in lines if "left out" not in line]


@pytest.fixture
def sets(tmp_path):
    captions = [annotated(i, "vg", captions=(f"photo {i}",), entities=(CAT,)) for i in (3, 1, 2)]
    graphs = [annotated(i, "gqa", entities=(MAT, CAT), relations=(Relation("1", "on", "2"),)) for i in (2, 3, 4)]
    return [write(tmp_path / "vg", captions), write(tmp_path / "gqa", graphs)]


def test_photos_of_all_sets_get_the_annotation_of_all(sets, tmp_path):
    manifest, skipped = merge(sets, tmp_path / "both")
    found = ShardSet(tmp_path / "both")
    samples = [found.read(i).sample for i in range(len(found))]
    assert [s.image_id for s in samples] == ["3", "2"] and skipped == []
    assert manifest["source"] == samples[0].source == "vg+gqa"
    assert samples[0].captions == ("photo 3",)
    assert {(e.id, e.label) for e in samples[0].entities} == {("0.1", "cat"), ("1.2", "mat")}
    assert samples[0].relations == (Relation("0.1", "on", "1.2"),)


def test_boxes_follow_the_size_of_the_first_sets_photo():
    half = annotated(1, "b", width=50, height=25, entities=(Entity("x", "dog", (5, 5, 50, 25)),))
    joined = join([annotated(1, "a"), half])
    assert joined.entities == (Entity("1.x", "dog", (10, 10, 100, 50)),)
    assert (joined.width, joined.height) == (100, 50)


def test_attributes_of_one_thing_are_united():
    joined = join([annotated(1, "a", entities=(CAT,)), annotated(1, "b", entities=(Entity("9", *_of(CAT)),))])
    assert joined.entities == (Entity("0.1", "cat", CAT.box, ("grey", "small")),)


def test_no_relation_is_of_a_thing_with_itself():
    twin, beside = Entity("3", *_of(CAT)), Relation("1", "beside", "2")
    stated = annotated(1, "a", entities=(CAT, MAT, twin), relations=(beside, Relation("1", "beside", "3")))
    assert join([stated, annotated(1, "b")]).relations == (Relation("0.1", "beside", "0.2"),)


def _of(entity):
    return entity.label, entity.box, ("small",)


def test_a_photo_of_another_shape_is_left_out_and_listed(sets, tmp_path):
    turned = [annotated(i, "c", width=50, height=100 if i == 3 else 25) for i in (2, 3)]
    manifest, skipped = merge([*sets, write(tmp_path / "turned", turned)], tmp_path / "all")
    assert manifest["totals"]["samples"] == 1
    assert len(skipped) == 1 and "photo 3 is 100x50 in one set and 50x100 in another" in skipped[0]
    assert skipped[0].startswith("image 3: sets that do not fit together: ")


def test_sets_without_a_common_photo_are_an_error(sets, tmp_path):
    apart = write(tmp_path / "apart", [annotated(9, "d")])
    with pytest.raises(UserError, match="no samples to write"):
        merge([*sets, apart], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command(sets, tmp_path, capsys, monkeypatch):
    command = ["relvlm", "data", "merge", *map(str, sets), "--out", str(tmp_path / "both")]
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(SystemExit) as done:
        relvlm()
    assert not done.value.code
    assert "2 samples, 2 captions, 4 entities, 2 relations" in capsys.readouterr().out


def test_sets_of_different_datasets_are_refused(tmp_path):
    sets = [write(tmp_path / source, [annotated(42, source)]) for source in ("coco", "gqa")]
    with pytest.raises(UserError, match=r"coco is of coco, .*gqa is of visual_genome: their ids mean different photos"):
        merge(sets, tmp_path / "both")
    same = [sets[1], write(tmp_path / "vg", [annotated(42, "visual_genome")])]
    assert merge(same, tmp_path / "both")[0]["totals"]["samples"] == 1


@pytest.mark.parametrize("form", ["{}", "pipe:cat {}/{{}}"])
def test_a_merge_that_was_ended_goes_on_with_its_own_sets_alone(sets, tmp_path, monkeypatch, form):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    others = [annotated(i, "gqa", captions=("another",)) for i in (1, 2, 3)]
    vg, gqa, other = [form.format(folder) for folder in (*sets, write(tmp_path / "other", others))]
    with monkeypatch.context() as broken:
        broken.setattr(workers, "make_shard", _full_disk)
        with pytest.raises(OSError):
            merge([vg, gqa], tmp_path / "both")
    with pytest.raises(UserError, match=r"begun with other input or arguments: (files, )?places"):
        merge([vg, other], tmp_path / "both")


def _full_disk(*_):
    raise OSError(28, "No space left on device")


def test_a_photo_that_is_there_twice_is_taken_once_and_listed(tmp_path):
    twice = [annotated(i, "vg", captions=(f"text {n}",)) for n, i in enumerate((1, 2, 1))]
    first = [(f"k{n}", photo(100, 50), s) for n, s in enumerate(twice)]
    write_shards(tmp_path / "first", first, source="vg", builder_args={}, shard_size=2)
    second = write(tmp_path / "second", [annotated(1, "gqa"), annotated(2, "gqa")])
    for sets, listed in (
        ([tmp_path / "first", second], "000001.tar: k2: repeated: same image_id as a record before: 1"),
        ([second, tmp_path / "first"], "first: image 1 is there twice, its first annotation is taken"),
    ):
        manifest, skipped = merge(sets, tmp_path / sets[0].name / "both")
        assert manifest["totals"]["samples"] == 2
        assert len(skipped) == 1 and skipped[0].endswith(listed)
        found = ShardSet(tmp_path / sets[0].name / "both")
        assert [c for i in range(2) for c in found.read(i).sample.captions] == ["text 0", "text 1"]


def test_a_key_that_is_in_two_shards_is_taken_once_and_listed(tmp_path):
    same_key = [("k", photo(100, 50), annotated(n, "vg")) for n in range(2)]
    write_shards(tmp_path / "first", same_key, source="vg", builder_args={}, shard_size=1)
    second = write(tmp_path / "second", [annotated(n, "gqa") for n in range(2)])
    manifest, skipped = merge([tmp_path / "first", second], tmp_path / "both")
    assert manifest["totals"]["samples"] == 1
    assert skipped == ["000001.tar: k: repeated: same key as a record before: k"]
