"""Visual Genome's region descriptions as captions and as regions."""

import pytest
from support.raw_files import dump, photo, run

from relvlm.data.shards.store import ShardSet
from relvlm.data.sources import vg_regions


def region(number, phrase, box=(1, 2, 10, 10)):
    named = dict(zip(("x", "y", "width", "height"), box, strict=True))
    return {"region_id": number, "image_id": 7, "phrase": phrase, **named}


REGIONS = [region(1, "a  Dog"), region(2, "sky", (0, -5, 60, 15)), region(3, "a Dog"), region(4, " ")]
REGIONS += [region(5, "rope", (3, 3, 0, 9)), region(1, "twice")]


@pytest.fixture(params=["id", "image_id"])
def built(request, tmp_path):
    photo(tmp_path / "images" / "7.jpg")
    file = dump(tmp_path / "region_descriptions.json", [{request.param: 7, "regions": REGIONS}])

    def build(kind, *more):
        flags = ("--regions", file, "--images", tmp_path / "images", "--as", kind, "--out", tmp_path / "out")
        run(vg_regions, *flags, *more)
        return ShardSet(tmp_path / "out").read(0).sample, (tmp_path / "out" / "build.log").read_text()

    return build


def test_phrases_become_captions_each_once(built):
    sample, log = built("captions")
    assert sample.captions == ("a Dog", "sky", "rope", "twice") and not sample.entities
    assert "1 of 6 region records left out, by rule: phrase: empty" in log


def test_phrases_become_regions_with_their_boxes(built):
    sample, log = built("regions")
    assert [(e.label, e.box) for e in sample.entities] == [
        ("a Dog", (1, 2, 11, 12)),
        ("sky", (0, 0, 40, 10)),
        ("a Dog", (1, 2, 11, 12)),
    ]
    assert not sample.captions
    assert "faulty: region_id: another region of its image has it" in log and "less than a pixel" in log


def test_no_more_than_asked_for(built):
    assert built("captions", "--most", 2)[0].captions == ("a Dog", "sky")


def test_an_image_without_a_phrase_is_left_out_by_rule(tmp_path):
    for n in (7, 8):
        photo(tmp_path / "images" / f"{n}.jpg")
    file = dump(tmp_path / "r.json", [{"id": 7, "regions": []}, {"id": 8, "regions": REGIONS}])
    run(vg_regions, "--regions", file, "--images", tmp_path / "images", "--as", "captions", "--out", tmp_path / "out")
    assert len(ShardSet(tmp_path / "out")) == 1
    assert "1 of 2 image records left out, by rule: no usable region" in (tmp_path / "out" / "build.log").read_text()
