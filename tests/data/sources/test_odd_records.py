"""Annotation that is well-formed and odd, thrown at every builder: a UserError or sound samples, nothing in between.

Each example is a small sound file with values replaced at random, by others of any JSON type. Whatever text comes out
must have stood in the file as text: nothing is converted on the way.
"""

import copy
import csv
import json
import shutil
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from support.raw_files import dump, node, photo

from relvlm.data.shards.schema import Sample, SchemaError
from relvlm.data.shards.store import ShardSet
from relvlm.data.sources import (
    cc3m,
    coco,
    coco_annotations,
    flickr30k,
    gqa,
    open_images,
    records,
    vg_regions,
    visual_genome,
    web,
)
from relvlm.data.sources.driver import Driver, Options
from relvlm.data.sources.faults import Faults
from relvlm.data.sources.scene_graphs import Files
from relvlm.errors import UserError

EXAMPLES = settings(max_examples=40, deadline=None, derandomize=True, database=None)

odd = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 60),
    st.sampled_from([10**30, -(10**30), 0.5, 7.0, 1e308, float("nan"), float("inf"), -0.0]),
    st.sampled_from(
        ["", " ", "7", "007", "2,5", "none", "A\nb", "\u2028", "\ud800", "\0", "a/b", "../7", "é", "x" * 300]
    ),
    st.sampled_from([[], {}, [[]], [None], ["red"], [1, 2, 3], [1, 2, 3, 4], [0, 0, -5, 5], {"id": 7}, {"a": {}}]),
)


def places(value, path=()):
    """Paths of everything within a JSON value."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, part in parts:
        yield (*path, name)
        yield from places(part, (*path, name))


@st.composite
def disturbed(draw, sound):
    """A copy of `sound` with up to four values replaced, removed, or (in lists) there twice."""
    value = copy.deepcopy(sound)
    for _ in range(draw(st.integers(1, 4))):
        *folders, name = draw(st.sampled_from(list(places(value))))
        place = value
        for folder in folders:
            place = place[folder]
        action = draw(st.sampled_from(["replace", "replace", "replace", "remove", "repeat"]))
        if action == "remove":
            del place[name]
        elif action == "repeat" and isinstance(place, list):
            place.append(copy.deepcopy(place[name]))
        else:
            place[name] = copy.deepcopy(draw(odd))
        if not list(places(value)):
            break
    return value


def texts_in(value):
    """Every string of a JSON value, keys included, in the form that builders give texts."""
    if isinstance(value, str):
        yield from (" ".join(value.split()), " ".join(value.lower().split()))
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from texts_in(key)
            yield from texts_in(part)
    elif isinstance(value, list):
        for part in value:
            yield from texts_in(part)


def check(raw, build):
    """Run `build(folder, out, faults)`: a UserError and no output, or sound samples whose texts stood in `raw`."""
    folder = Path(tempfile.mkdtemp())
    try:
        for n in (7, 8):
            photo(folder / "images" / f"{n}.jpg")
        try:
            build(folder, folder / "out", Faults(build.__name__, 1.0))
        except UserError:
            assert not (folder / "out").exists() and not list(folder.glob(".out*"))
            return
        known = set(texts_in(raw))
        shards = ShardSet(folder / "out")
        for sample in (shards.read(i).sample for i in range(len(shards))):
            assert set(sample.captions) | {r.predicate for r in sample.relations} <= known
            assert {t for e in sample.entities for t in (e.label, *e.attributes)} <= known
    finally:
        shutil.rmtree(folder)


IMAGES = [{"id": n, "file_name": f"{n}.jpg", "width": 40, "height": 30} for n in (7, 8)]
COCO = {
    "captions": {
        "images": IMAGES,
        "annotations": [{"id": n, "image_id": 7 + n % 2, "caption": f"A dog {n}."} for n in range(4)],
    },
    "instances": {
        "images": IMAGES,
        "categories": [{"id": 18, "name": "dog"}, {"id": 19, "name": "cat"}],
        "annotations": [
            {"id": n, "image_id": 7 + n % 2, "category_id": 18 + n % 2, "iscrowd": 0, "bbox": [n, 2, 9.5, 9]}
            for n in range(4)
        ],
    },
}


@EXAMPLES
@given(disturbed(COCO))
def test_coco(raw):
    def coco_(folder, out, faults):
        files = [dump(folder / f"{name}.json", raw.get(name)) for name in COCO]
        coco.build(*files, folder / "images", out, faults=Faults("coco", faults.max_share))

    check(raw, coco_)


def gqa_objects():
    man = {"name": "man", "x": 1, "y": 2, "w": 10, "h": 20, "attributes": ["tall", "old"]}
    man["relations"] = [{"name": "to the left of", "object": "9"}, {"name": "riding", "object": "9"}]
    return {"5": man, "9": {"name": "horse", "x": 20, "y": 2, "w": 15, "h": 20, "attributes": [], "relations": []}}


@EXAMPLES
@given(disturbed({str(n): {"width": 40, "height": 30, "objects": gqa_objects()} for n in (7, 8)}))
def test_gqa(raw):
    def gqa_(folder, out, faults):
        gqa.build(dump(folder / "graphs.json", raw), folder / "images", out, faults=Faults("gqa", faults.max_share))

    check(raw, gqa_)


def vg_objects(n):
    return [node(n, "man", attributes=["tall"]), node(n + 1, "x", names=["ice"], merged_object_ids=[n + 2])]


VG = {
    "relationships": [
        {
            "image_id": n,
            "relationships": [
                {"predicate": p, "subject": vg_objects(n)[0], "object": vg_objects(n)[1]} for p in ("ON", "near")
            ],
        }
        for n in (7, 8)
    ],
    "attributes": [{"image_id": n, "attributes": vg_objects(n)} for n in (7, 8)],
    "objects": [{"image_id": n, "objects": [node(n + 2, "ice")]} for n in (7, 8)],
    "image_data": [{"image_id": n, "width": 40, "height": 30} for n in (7, 8)],
}


def vg_files(folder, raw):
    return Files(**{name: dump(folder / f"{name}.json", raw.get(name)) for name in VG})


@EXAMPLES
@given(disturbed(VG))
def test_visual_genome(raw):
    def visual_genome_(folder, out, faults):
        faults = Faults("visual_genome", faults.max_share)
        visual_genome.build(vg_files(folder, raw), [folder / "images"], out, faults=faults)

    check(raw, visual_genome_)


@EXAMPLES
@given(disturbed(VG))
def test_visual_genome_without_photos(raw):
    folder = Path(tempfile.mkdtemp())
    try:
        visual_genome.parse_only(vg_files(folder, raw), folder / "out", faults=Faults("visual_genome", 1.0))
        for line in (folder / "out" / "samples.jsonl").read_text().split("\n")[:-1]:
            Sample.from_json(json.loads(line))
    except UserError:
        assert not (folder / "out").exists()
    finally:
        shutil.rmtree(folder)


RECORD = {
    "schema": 1,
    "image_id": "7",
    "width": 40,
    "height": 30,
    "source": "toy",
    "captions": ["a dog", "a cat"],
    "entities": [
        {"id": "a", "label": "dog", "box": [0, 0, 40, 30], "attributes": ["red"]},
        {"id": "b", "label": "cat", "box": [1.5, 2, 3, 4], "attributes": []},
    ],
    "relations": [{"subject": "a", "predicate": "near", "object": "b"}],
}


REGION = {"region_id": 1, "width": 9, "height": 8.5, "x": 1, "y": 2, "phrase": "a  Dog"}
REGIONS = [{"id": n, "regions": [REGION, {**REGION, "region_id": 2, "phrase": "ice"}]} for n in (7, 8)]


@EXAMPLES
@given(disturbed(REGIONS), st.sampled_from(["captions", "regions"]))
def test_vg_regions(raw, kind):
    def vg_regions_(folder, out, faults):
        source = vg_regions.VgRegions(dump(folder / "regions.json", raw), (folder / "images",), kind)
        Driver(source, Faults("vg_regions", faults.max_share), Options()).build(out)

    check(raw, vg_regions_)


SENTENCES = [{"raw": "A  dog.", "tokens": ["a", "dog"]}, {"raw": "Two dogs"}]
FLICKR = {"images": [{"filename": f"{n}.jpg", "split": "train", "sentences": SENTENCES} for n in (7, 8)]}


@EXAMPLES
@given(disturbed(FLICKR))
def test_flickr30k(raw):
    def flickr30k_(folder, out, faults):
        source = flickr30k.Flickr30k(dump(folder / "a.json", raw), folder / "images")
        Driver(source, Faults("flickr30k", faults.max_share), Options()).build(out)

    check(raw, flickr30k_)


@EXAMPLES
@given(disturbed([{**RECORD, "image": f"{n}.jpg"} for n in (7, 8)]))
def test_records(raw):
    def records_(folder, out, faults):
        (folder / "a.jsonl").write_text("\n".join(map(json.dumps, raw)))
        source = records.Records(folder / "a.jsonl", folder / "images")
        Driver(source, Faults("records", faults.max_share), Options()).build(out)

    check(raw, records_)


NUMBERS, TEXTS = ["1", "0.5", "-7", "nan"], ["0a1b", "", "/m/1", "man", "on", "a,b", '"', "\0", "http://a/7.jpg", "é"]
CELLS = st.sampled_from(NUMBERS + TEXTS)
SIDES = ("XMin", "XMax", "YMin", "YMax")
VRD = ["ImageID", "LabelName1", "LabelName2", *(side + n for n in "12" for side in SIDES), "RelationshipLabel"]
BOX = ["ImageID", "LabelName", *SIDES]
SOUND_BOX, SOUND_VRD = ["7", "/m/1", "0", "1", "0", "1"], ["7", "/m/1", "/m/1", *("0", "1") * 4, "on"]


@st.composite
def rows(draw, sound):
    """Rows of which some have a cell replaced, or one too many."""
    made = []
    for _ in range(draw(st.integers(1, 4))):
        row = list(sound)
        if draw(st.booleans()):
            row[draw(st.integers(0, len(row) - 1))] = draw(CELLS)
        made.append(row + draw(st.lists(CELLS, max_size=1)))
    return made


@EXAMPLES
@given(rows(SOUND_BOX), rows(SOUND_VRD))
def test_open_images(boxes, triplets):
    def open_images_(folder, out, faults):
        for name, content in (("boxes", [BOX, *boxes]), ("vrd", [VRD, *triplets]), ("labels", [["/m/1", "man"]])):
            with (folder / f"{name}.csv").open("w", newline="") as stream:
                csv.writer(stream).writerows(content)
        files = (folder / f"{name}.csv" for name in ("boxes", "vrd", "labels"))
        source = open_images.OpenImages(next(files), next(files), tuple(files), folder / "images")
        Driver(source, Faults("open_images", faults.max_share), Options()).build(out)

    check([*boxes, *triplets, ["man"]], open_images_)


@EXAMPLES
@given(rows(["a  dog", "http://a.org/7.jpg"]), st.binary(max_size=9))
def test_web_tables(table, more):
    def web_(folder, out, faults):
        lines = ["\t".join(row).encode() for row in table]
        (folder / "a.tsv").write_bytes(b"\n".join([*lines, more]))
        source = web.WebRows(cc3m.CC3M, folder / "a.tsv", folder / "images", "{url_name}")
        Driver(source, Faults("cc3m", faults.max_share), Options()).build(out)

    check([*table, more.decode(errors="replace")], web_)


@settings(EXAMPLES, max_examples=100)
@given(disturbed(RECORD))
def test_a_record_of_a_shard(record):
    try:
        sample = Sample.from_json(record)
    except SchemaError:
        return
    again = json.loads(json.dumps(sample.to_json(), allow_nan=False).encode())
    assert all(again[name] == value for name, value in record.items() if name != "entities")
    for given_, taken in zip(record.get("entities", []), again["entities"], strict=True):
        assert {name: taken[name] for name in given_} == given_


def test_the_sound_files_build_without_a_fault():
    faults = Faults("coco")
    assert len(list(coco_annotations.parse(COCO["captions"], COCO["instances"], faults))) == 2
    assert not faults.log()
