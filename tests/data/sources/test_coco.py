"""COCO: boxes and captions of photos, and what is left out."""

import json

import pytest
from PIL import Image
from support.raw_files import coco_files, dump, photo, run

from relvlm.data.pictures import decode
from relvlm.data.shards.store import ShardSet
from relvlm.data.sources import coco, coco_annotations
from relvlm.data.sources.driver import Options
from relvlm.data.sources.faults import Faults
from relvlm.errors import UserError


def test_coco_builds_the_real_photos(shared, tmp_path, capsys):
    folder = shared / "data" / "coco_cc"
    status = run(
        coco,
        *("--captions", folder / "annotations" / "captions.json"),
        *("--instances", folder / "annotations" / "instances.json"),
        *("--images", folder / "images", "--out", tmp_path / "coco", "--shard-size", 50),
    )
    assert status == 0
    shards = ShardSet(tmp_path / "coco")
    samples = [shards.read(i).sample for i in range(len(shards))]
    crowds = 7
    assert len(samples) == 136 and len(shards.shards) == 3
    assert sum(len(s.captions) for s in samples) == 555
    assert sum(len(s.entities) for s in samples) == 971 - crowds
    assert {e.label for s in samples for e in s.entities} >= {"person", "dog", "dining table"}
    assert "136 samples, 555 captions" in capsys.readouterr().out


def test_coco_boxes_become_corners_and_stay_inside(tmp_path):
    boxes = [(1, 2, 10.5, 10), (35, -5, 10, 10), (3, 3, 0, 9), (39.5, 0, 9, 9)]
    captions, instances = (json.loads(f.read_text()) for f in coco_files(tmp_path, boxes))
    [(name, sample)] = coco_annotations.parse(captions, instances)
    assert name == "7.jpg" and sample.captions == ("A dog.",)
    assert [(e.label, e.box) for e in sample.entities] == [
        ("dog", (1, 2, 11.5, 12)),
        ("dog", (35, 0, 40, 5)),
    ]


@pytest.mark.parametrize(
    ("name", "size", "reason"),
    [
        ("gone.jpg", None, "no such photo"),
        ("7.jpg", (30, 40), "is 30x40, its annotation is for 40x30"),
        ("../7.jpg", (40, 30), "leaves the photo folder"),
    ],
)
def test_coco_lists_photos_it_cannot_use(tmp_path, name, size, reason):
    captions, instances = coco_files(tmp_path)
    content = json.loads(captions.read_text())
    content["images"].append({"id": 8, "file_name": name, "width": 40, "height": 30})
    dump(captions, content)
    photo(tmp_path / "images" / "7.jpg")
    if name == "7.jpg":
        content["images"][1]["file_name"] = "8.jpg"
        dump(captions, content)
        photo(tmp_path / "images" / "8.jpg", size)
    manifest, skipped = coco.build(captions, instances, tmp_path / "images", tmp_path / "out")
    assert manifest["totals"]["samples"] == 1
    [line] = (tmp_path / "out" / "skipped.txt").read_text().splitlines()
    assert skipped == 1 and reason in line


def test_coco_without_any_photo_is_one_error(tmp_path):
    captions, instances = coco_files(tmp_path)
    with pytest.raises(UserError, match=r"none of the 1 photos.*7.jpg: no such photo \(check --images\)"):
        coco.build(captions, instances, tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_coco_shrinks_photos_and_their_boxes_with_them(tmp_path):
    boxes = [(20, 15, 20, 15), (4, 4, 3, 20)]  # the second is left under a pixel wide
    captions, instances = coco_files(tmp_path, boxes)
    (tmp_path / "images").mkdir()
    picture = Image.new("RGB", (40, 30), "black")
    picture.paste("white", (20, 15, 40, 30))
    picture.save(tmp_path / "images" / "7.jpg", quality=95)
    paths = ("--captions", captions, "--instances", instances, "--images", tmp_path / "images")
    run(coco, *paths, "--out", tmp_path / "out", "--max-side", 9)
    record = ShardSet(tmp_path / "out").read(0)
    small = decode(record.image, 1000)
    assert (record.sample.width, record.sample.height) == small.size == (9, 7)
    assert record.sample.captions == ("A dog.",)
    assert [e.box for e in record.sample.entities] == [(4.5, 3.5, 9, 7)]
    assert min(small.getpixel((7, 5))) > 200 and max(small.getpixel((1, 1))) < 50


def test_coco_leaves_photos_that_are_small_enough_byte_for_byte(tmp_path):
    captions, instances = coco_files(tmp_path)
    photo(tmp_path / "images" / "7.jpg")
    coco.build(captions, instances, tmp_path / "images", tmp_path / "out", options=Options(max_side=40))
    record = ShardSet(tmp_path / "out").read(0)
    assert record.image == (tmp_path / "images" / "7.jpg").read_bytes()
    assert record.sample.entities[0].box == (1, 2, 11, 12)


def test_coco_lists_a_photo_cut_short_that_it_cannot_shrink(tmp_path):
    captions, instances = coco_files(tmp_path)
    content = json.loads(captions.read_text())
    content["images"].append({"id": 8, "file_name": "8.jpg", "width": 40, "height": 30})
    dump(captions, content)
    photo(tmp_path / "images" / "7.jpg")
    cut = tmp_path / "images" / "8.jpg"
    Image.effect_noise((40, 30), 100).save(cut, "JPEG")
    cut.write_bytes(cut.read_bytes()[:-100])
    manifest, skipped = coco.build(
        captions, instances, tmp_path / "images", tmp_path / "out", options=Options(max_side=8)
    )
    assert manifest["totals"]["samples"] == 1
    assert skipped == 1 and "8.jpg: corrupt image" in (tmp_path / "out" / "skipped.txt").read_text()


def test_excluded_images_stay_out(tmp_path):
    captions, instances = coco_files(tmp_path)
    photo(tmp_path / "images" / "7.jpg")
    (tmp_path / "ids.txt").write_text("7\n")
    common = ("--captions", captions, "--instances", instances, "--images", tmp_path / "images")
    with pytest.raises(UserError, match="no samples"):
        run(coco, *common, "--out", tmp_path / "out", "--exclude", tmp_path / "ids.txt")


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "not valid JSON"), ("[]", "top level is a list, expected a dict"), ("{}", "'images' is missing")],
)
def test_coco_names_the_fault_of_a_wrong_file(tmp_path, content, message):
    captions, instances = coco_files(tmp_path)
    captions.write_text(content)
    with pytest.raises(UserError, match=message):
        coco.build(captions, instances, tmp_path, tmp_path / "out")


def parsed(captions=(), boxes=(), images=(), categories=()):
    """(samples, faults) of image 7 with these annotations and further images."""
    stated = [{"id": 7, "file_name": "7.jpg", "width": 40, "height": 30}, *images]
    kinds = [{"id": 18, "name": "dog"}, *categories]
    faults = Faults("coco")
    texts = {"images": stated, "annotations": list(captions)}
    samples = list(
        coco_annotations.parse(texts, {"images": [], "annotations": list(boxes), "categories": kinds}, faults)
    )
    return [sample for _, sample in samples], faults


def caption(**changes):
    return {"id": 1, "image_id": 7, "caption": "A dog.", **changes}


def box(**changes):
    return {"id": 1, "image_id": 7, "category_id": 18, "bbox": [1, 2, 10, 10], **changes}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"caption": None}, "caption: no text"),
        ({"caption": float("nan")}, "caption: no text"),
        ({"caption": ["A dog."]}, "caption: no text"),
        ({"caption": "\udc00"}, "caption: half of a surrogate pair"),
        ({"image_id": 8}, "image_id: names no image"),
        ({"image_id": None}, "image_id: no id"),
        ({"image_id": [7]}, "image_id: no id"),
        ({"id": None}, "id: no id"),
    ],
)
def test_coco_counts_captions_that_it_cannot_use(change, reason):
    [sample], faults = parsed([caption(**change), caption(id=2)])
    assert sample.captions == ("A dog.",)
    assert faults.faults == {("caption", reason): 1}
    assert faults.lines[0].startswith(f"captions: annotations[0]: {reason}")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"bbox": []}, "bbox: no list of four numbers"),
        ({"bbox": None}, "bbox: no list of four numbers"),
        ({"bbox": {"x": 1}}, "bbox: no list of four numbers"),
        ({"bbox": [1, 2, 3, "4"]}, "bbox: no number"),
        ({"bbox": [1, 2, 3, None]}, "bbox: no number"),
        ({"bbox": [1, 2, float("nan"), 4]}, "bbox: out of all bounds"),
        ({"bbox": [1, 2, float("inf"), 4]}, "bbox: out of all bounds"),
        ({"bbox": [9, 9, -3, 4]}, "bbox, bbox: negative"),
        ({"category_id": 19}, "category_id: names no category"),
        ({"category_id": None}, "category_id: no id"),
        ({"iscrowd": "0"}, "iscrowd: neither 0 nor 1"),
        ({"id": 2}, "id: another box of its image has it"),
    ],
)
def test_coco_counts_boxes_that_it_cannot_use(change, reason):
    [sample], faults = parsed(boxes=[box(id=2), box(**change)])
    assert [e.id for e in sample.entities] == ["2"]
    assert faults.faults == {("box", reason): 1}
    assert faults.lines[0].startswith("instances: annotations[1]: ")


def test_coco_counts_what_a_rule_leaves_out_without_calling_it_faulty():
    boxes = [box(), box(id=2, iscrowd=1), box(id=3, bbox=[50, 0, 9, 9]), box(id=4, bbox=[1, 1, 0, 4])]
    [sample], faults = parsed([caption(caption=" ")], boxes)
    assert len(sample.entities) == 1 and sample.captions == () and not faults.faults
    assert faults.left_out == {
        ("caption", "caption: empty"): 1,
        ("box", "a crowd"): 1,
        ("box", "less than a pixel of its box is inside the image"): 2,
    }


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"width": None}, "width: no number of pixels"),
        ({"height": 0}, "height: no number of pixels"),
        ({"id": None}, "id: no id"),
        ({"id": 8.5}, "id: no id"),
        ({"file_name": None}, "file_name: no text"),
    ],
)
def test_coco_leaves_out_images_that_are_not_described(change, reason):
    image = {"id": 8, "file_name": "8.jpg", "width": 40, "height": 30, **change}
    samples, faults = parsed(images=[image], captions=[caption(image_id=8)] if "id" not in change else [])
    assert [s.image_id for s in samples] == ["7"]
    assert faults.faults == {("image", reason): 1}


def test_coco_ids_of_any_kind_meet():
    images = [{"id": i, "file_name": f"{n}.jpg", "width": 9.0, "height": 9} for n, i in enumerate(("00010", 9.0, "x"))]
    captions = [caption(id="b", image_id=10), caption(id=2, image_id="9"), caption(id=0.0, image_id="x")]
    samples, faults = parsed(captions, images=images)
    assert [s.image_id for s in samples] == ["7", "9", "10", "x"]
    assert [len(s.captions) for s in samples] == [0, 1, 1, 1] and not faults.faults


def test_coco_files_that_contradict_each_other_cost_the_image():
    image = {"id": 8, "file_name": "000000000008.jpg", "width": 40, "height": 30}
    samples, faults = parsed(images=[image, {**image, "file_name": "COCO_val2014_000000000008.jpg"}])
    assert len(samples) == 2 and not faults.faults
    samples, faults = parsed(images=[image, {**image, "width": 41}, {**image, "file_name": "9.jpg"}])
    assert len(samples) == 1 and faults.faults == {("image", "described twice, not alike"): 1}


@pytest.mark.parametrize(
    ("category", "message"),
    [
        ({"id": 19, "name": None}, r"categories\[1\]: name: no text: None"),
        ({"id": 18, "name": "cat"}, r"categories\[1\]: id 18 has no name, or another one before"),
        ({"id": 19}, r"categories\[1\]: name: missing"),
    ],
)
def test_coco_categories_must_be_sound(category, message):
    with pytest.raises(UserError, match=message):
        parsed(categories=[category])


def test_coco_excludes_by_file_name_and_tells_what_it_hit(tmp_path):
    captions, instances = coco_files(tmp_path)
    content = json.loads(captions.read_text())
    content["images"].append({"id": 8, "file_name": "000000000008.jpg", "width": 40, "height": 30})
    dump(captions, content)
    photo(tmp_path / "images" / "7.jpg")
    (tmp_path / "ids.txt").write_bytes("\ufeffCOCO_val2014_000000000008.jpg\r\n000000000099\r\n".encode())
    paths = ("--captions", captions, "--instances", instances, "--images", tmp_path / "images")
    assert run(coco, *paths, "--out", tmp_path / "out", "--exclude", tmp_path / "ids.txt") == 0
    arguments = ShardSet(tmp_path / "out").manifest["builder"]["arguments"]
    assert arguments["excluded"] == {"entries": 2, "images": 1, "not_found": 1}
    assert "1 of 2 entries name no image of coco, such as '000000000099'" in (tmp_path / "out/build.log").read_text()


def test_coco_names_files_of_one_name_by_their_folders(tmp_path):
    captions, instances = (f.rename(f.with_suffix("") / "a.json") for f in folders(coco_files(tmp_path, [[]])))
    photo(tmp_path / "images" / "7.jpg")
    with pytest.raises(UserError, match=r"instances/a\.json: annotations\[0\]: bbox: no list of four numbers"):
        coco.build(captions, instances, tmp_path / "images", tmp_path / "out")


def folders(files):
    for file in files:
        file.with_suffix("").mkdir()
    return files


def test_a_list_that_excludes_nothing_is_an_error(tmp_path):
    captions, instances = coco_files(tmp_path)
    photo(tmp_path / "images" / "7.jpg")
    with pytest.raises(UserError, match="--exclude: 1 of 1 entries name no image of coco"):
        options = Options(exclude=["VG_100K/7.jpg"])
        coco.build(captions, instances, tmp_path / "images", tmp_path / "out", options=options)
    assert not (tmp_path / "out").exists()


def test_either_file_alone_will_do(tmp_path):
    captions, instances = coco_files(tmp_path)
    photo(tmp_path / "images" / "7.jpg")
    for flag, file, kinds in (("--captions", captions, (1, 0)), ("--instances", instances, (0, 1))):
        run(coco, flag, file, "--images", tmp_path / "images", "--out", tmp_path / flag)
        sample = ShardSet(tmp_path / flag).read(0).sample
        assert (len(sample.captions), len(sample.entities)) == kinds
    with pytest.raises(UserError, match="neither --captions nor --instances"):
        run(coco, "--images", tmp_path / "images", "--out", tmp_path / "out")
