"""Open Images: boxes and relationships of two files, joined by label and box."""

import pytest
from support.raw_files import photo, run

from relvlm.data.shards.schema import Relation
from relvlm.data.shards.store import ShardSet
from relvlm.data.sources import open_images
from relvlm.errors import UserError

MAN, HORSE, WOOD = "/m/04yx4", "/m/03k3r", "/m/083vt"
BOXES = (
    "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside\n"
)
SIDES = ("XMin", "XMax", "YMin", "YMax")
VRD = "ImageID,LabelName1,LabelName2," + ",".join(f"{side}{n}" for n in (1, 2) for side in SIDES) + ",{}\n"
ON = f"0a1b,{MAN},{HORSE},0.1,0.5,0,1,0.25,1,0.5,1,on\n"
IS = f"0a1b,{HORSE},{WOOD},0.25,1,0.5,1,0.25,1,0.5,1,is\n"


def box(label, box="0.1,0.5,0,1", image="0a1b", group=0):
    return f"{image},xclick,{label},1,{box},0,0,{group},0,0\n"


def build(tmp_path, boxes, relationships=ON, predicate="RelationshipLabel", *flags):
    photo(tmp_path / "train" / "0a1b.jpg")
    files = {"boxes": BOXES + boxes, "relationships": VRD.format(predicate) + relationships}
    for name, text in files.items():
        (tmp_path / f"{name}.csv").write_text(text)
    (tmp_path / "labels.csv").write_text(f"{MAN},Man\n{HORSE},Horse\n")
    (tmp_path / "attributes.csv").write_text(f"LabelName,DisplayName\n{WOOD},Wooden\n")
    flags += tuple(part for name in files for part in (f"--{name}", tmp_path / f"{name}.csv"))
    labels = ("--labels", tmp_path / "labels.csv", tmp_path / "attributes.csv")
    run(open_images, *flags, *labels, "--images", tmp_path / "train", "--out", tmp_path / "out")
    return ShardSet(tmp_path / "out").read(0).sample


@pytest.mark.parametrize("predicate", ["RelationshipLabel", "RelationLabel"])
def test_the_two_files_are_joined_by_label_and_box(tmp_path, predicate):
    sample = build(tmp_path, box(MAN) + box(HORSE, "0.25,1,0.5,1"), ON + IS, predicate)
    assert [(e.label, e.box, e.attributes) for e in sample.entities] == [
        ("man", (4, 0, 20, 30), ()),
        ("horse", (10, 15, 40, 30), ("wooden",)),
    ]
    assert sample.relations == (Relation("0", "on", "1"),)


def test_a_box_that_only_a_relationship_has_is_an_entity(tmp_path):
    sample = build(tmp_path, box(MAN))
    assert [e.label for e in sample.entities] == ["man", "horse"] and len(sample.relations) == 1


def test_groups_are_left_out_by_rule_and_odd_rows_are_faults(tmp_path):
    odd = box("/m/none") + box(MAN, "0.1,x,0,1") + box(MAN, "0.5,0.1,0,1") + "0a1b,short\n" + box(MAN, "0,40,0,1")
    sample = build(tmp_path, box(MAN) + box(HORSE, group=1) + odd, "", "RelationshipLabel", "--max-faults", ".9")
    assert [e.label for e in sample.entities] == ["man"]
    log = (tmp_path / "out" / "build.log").read_text()
    for reason in (
        "by rule: a group",
        "faulty: LabelName: no such label",
        "faulty: XMax: no number",
        "faulty: a box of negative size",
        "faulty: not 13 columns",
        "faulty: XMax: no share of the photo's side",
    ):
        assert f"1 of 7 box records left out, {reason}" in log


def test_another_file_is_one_error(tmp_path):
    with pytest.raises(UserError, match=r"relationships\.csv: no column ImageID"):
        photo(tmp_path / "train" / "0a1b.jpg")
        (tmp_path / "boxes.csv").write_text(BOXES)
        (tmp_path / "relationships.csv").write_text("a,b\n")
        (tmp_path / "labels.csv").write_text(f"{MAN},Man\n")
        flags = ("--boxes", tmp_path / "boxes.csv", "--relationships", tmp_path / "relationships.csv")
        more = ("--labels", tmp_path / "labels.csv", "--images", tmp_path / "train", "--out", tmp_path / "out")
        run(open_images, *flags, *more)
