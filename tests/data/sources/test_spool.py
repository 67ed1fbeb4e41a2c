"""Records by image on disk: their order, what a second run finds, names that were there before."""

import pytest

from relvlm.data.sources import spool as spool_module
from relvlm.data.sources.faults import Faults, RecordFault
from relvlm.data.sources.fields import id_order
from relvlm.data.sources.spool import SeenNames, Spool, filled, values

IDS = ["10", "9", "-3", "x", "10000000000000000000000", "-20", "a", "0"]


def test_values_come_in_the_order_in_which_they_were_put():
    spool = Spool()
    for number, image in enumerate("babcb"):
        spool.put("box", image, (number, {"of": image}))
    spool.put("caption", "d", "one")
    assert spool.get("box", "b") == [(0, {"of": "b"}), (2, {"of": "b"}), (4, {"of": "b"})]
    assert values(spool.blobs("box", "c")) == [(3, {"of": "c"})]
    assert spool.get("box", "d") == [] and spool.count("box") == 3
    assert list(spool.images("box")) == ["b", "a", "c"] and list(spool.images()) == ["b", "a", "c", "d"]
    assert list(spool.images("box", without="caption")) == ["b", "a", "c"]
    assert list(spool.images("caption", without="box")) == ["d"]


def test_images_by_id_are_in_the_order_of_ids():
    spool = Spool()
    for image in IDS:
        spool.put("photo", image, 0)
    assert list(spool.images("photo", by_id=True)) == sorted(IDS, key=id_order)


def test_a_file_is_filled_once_and_its_faults_are_counted_each_time(tmp_path):
    calls = []

    def fill(spool, faults):
        calls.append(1)
        faults.read["box"] += 2
        faults.add("box", "a[1]", RecordFault("odd"))
        spool.put("box", "7", "value")

    for _ in range(2):
        faults = Faults("coco")
        assert filled(tmp_path / "spool", fill, faults).get("box", "7") == ["value"]
        assert faults.read == {"box": 2} and faults.faults == {("box", "odd"): 1} and faults.lines == ["a[1]: odd"]
    assert len(calls) == 1 and [file.name for file in tmp_path.iterdir()] == ["spool"]


def test_a_file_that_was_not_filled_to_its_end_is_filled_anew(tmp_path):
    def fails(spool, faults):
        spool.put("box", "7", "half")
        spool._database.commit()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        filled(tmp_path / "spool", fails, Faults("coco"))
    assert not (tmp_path / "spool").exists()
    spool = filled(tmp_path / "spool", lambda spool, _: spool.put("box", "7", "whole"), Faults("coco"))
    assert spool.get("box", "7") == ["whole"]


def test_without_a_file_nothing_is_left(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spool = filled(None, lambda spool, faults: spool.put("box", "7", 1), Faults("coco"))
    assert spool.get("box", "7") == [1] and not list(tmp_path.iterdir())


def test_a_name_is_new_once():
    seen = SeenNames()
    names = ["1", "01", "a/b", "é", "\ud800", "", "x" * 3000]
    assert all(seen.add(name) for name in names)
    assert not any(seen.add(name) for name in names)


def test_ids_of_every_length_have_a_rank_of_their_own():
    assert len({spool_module._id_rank(name) for name in IDS}) == len(IDS)
