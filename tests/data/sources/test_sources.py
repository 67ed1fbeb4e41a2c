import argparse
import json

import pytest
from PIL import Image

from relvlm.data.pictures import decode
from relvlm.data.shards.schema import Relation, Sample
from relvlm.data.shards.store import ShardSet
from relvlm.data.sources import coco, gqa, raw, scene_graphs, visual_genome
from relvlm.errors import UserError


def run(source, *flags):
    parser = argparse.ArgumentParser()
    source.add_arguments(parser)
    return source.main(parser.parse_args([str(flag) for flag in flags]))


def photo(path, size=(40, 30)):
    path.parent.mkdir(exist_ok=True)
    Image.new("RGB", size).save(path, "JPEG")


def dump(path, content):
    path.write_text(json.dumps(content))
    return path


# COCO


def coco_files(folder, boxes=((1, 2, 10, 10),), name="7.jpg"):
    images = [{"id": 7, "file_name": name, "width": 40, "height": 30}]
    captions = {"images": images, "annotations": [{"id": 1, "image_id": 7, "caption": " A  dog.\n"}]}
    annotations = [{"id": n, "image_id": 7, "category_id": 18, "bbox": b} for n, b in enumerate(boxes)]
    instances = {"images": images, "annotations": annotations, "categories": [{"id": 18, "name": "dog"}]}
    return dump(folder / "captions.json", captions), dump(folder / "instances.json", instances)


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
    [(name, sample)] = coco.parse(captions, instances)
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
    assert len(skipped) == 1 and reason in skipped[0]
    assert (tmp_path / "out" / "skipped.txt").read_text() == skipped[0] + "\n"


def test_coco_without_any_photo_is_one_error(tmp_path):
    captions, instances = coco_files(tmp_path)
    with pytest.raises(UserError, match=r"none of the 1 photos.*7.jpg: no such photo \(check --images\)"):
        coco.build(captions, instances, tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_photo_that_is_no_photo_is_listed(tmp_path):
    (tmp_path / "7.jpg").write_bytes(b"\xff\xd8\xff rubbish")
    with pytest.raises(raw.PhotoFault, match="not a readable JPEG or PNG"):
        raw.read_photo([tmp_path], "7.jpg")


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
    coco.build(captions, instances, tmp_path / "images", tmp_path / "out", max_side=40)
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
    manifest, skipped = coco.build(captions, instances, tmp_path / "images", tmp_path / "out", max_side=8)
    assert manifest["totals"]["samples"] == 1
    assert len(skipped) == 1 and "8.jpg: corrupt image" in skipped[0]


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


# Visual Genome


def node(object_id, name, box=(0, 0, 10, 10), **more):
    return {"object_id": object_id, "name": name, **dict(zip("xywh", box, strict=True)), **more}


def vg_graph(relationships, attributes=(), size=None):
    records = [{"subject": s, "predicate": p, "object": o} for s, p, o in relationships]
    return scene_graphs.ImageGraph("1", records, list(attributes), [], size)


def vg_flags(shared):
    folder = shared / "data" / "vg"
    return ("--relationships", folder / "relationships.json", "--attributes", folder / "attributes.json")


def test_vg_parses_the_genuine_annotation(shared, tmp_path, capsys):
    assert run(visual_genome, *vg_flags(shared), "--parse-only", "--out", tmp_path / "vg") == 0
    lines = (tmp_path / "vg" / "samples.jsonl").read_text().splitlines()
    samples = {s.image_id: s for s in (Sample.from_json(json.loads(line)) for line in lines)}
    assert list(samples) == ["1", "2", "3"]
    said = set()
    for sample in samples.values():
        name = {e.id: e.label for e in sample.entities}
        said |= {(name[r.subject], r.predicate, name[r.object]) for r in sample.relations}
    assert {("shade", "on", "sidewalk"), ("man", "wears", "shoes")} <= said
    clock = next(e for e in samples["1"].entities if e.id == "1058498")
    assert (clock.label, clock.box, clock.attributes) == ("clock", (421, 91, 500, 430), ("green", "tall"))
    predicates = (tmp_path / "vg" / "relations.txt").read_text().splitlines()
    assert predicates == sorted(predicates) and {"on", "in", "wearing"} <= set(predicates)
    figures = json.loads((tmp_path / "vg" / "statistics.json").read_text())
    assert figures["totals"]["images"] == 3
    assert figures["totals"]["relations"] == sum(len(s.relations) for s in samples.values()) > 80
    assert "predicates" in capsys.readouterr().out


def test_vg_builds_shards_where_photos_are(shared, tmp_path, capsys):
    photo(tmp_path / "photos" / "2.jpg", (800, 600))
    flags = ("--images", tmp_path / "photos", "--out", tmp_path / "vg")
    assert run(visual_genome, *vg_flags(shared), *flags) == 0
    shards = ShardSet(tmp_path / "vg")
    assert len(shards) == 1 and (shards.read(0).sample.width, shards.read(0).sample.height) == (800, 600)
    assert (tmp_path / "vg" / "skipped.txt").read_text().splitlines() == [
        "1.jpg: no such photo",
        "3.jpg: no such photo",
    ]
    assert "skipped 2 photos in all" in capsys.readouterr().err


def test_vg_without_photos_points_to_parse_only(shared, tmp_path):
    with pytest.raises(UserError, match="--parse-only"):
        run(visual_genome, *vg_flags(shared), "--out", tmp_path / "vg")


def test_vg_merges_objects_and_lower_cases_predicates():
    street = node(5, "street", (1, 1, 9, 9), attributes=["Wet"])
    sidewalk = node(7, "ignored", names=["Sidewalk "], merged_object_ids=[5], attributes=["grey", "sidewalk"])
    graph = vg_graph([(node(1, "man"), "ON ", street), (node(1, "man"), "on", sidewalk)], [street, sidewalk])
    sample = scene_graphs.to_sample(graph)
    assert [(e.id, e.label) for e in sample.entities] == [("1", "man"), ("7", "sidewalk")]
    assert sample.relations == (Relation("1", "on", "7"),)
    assert sample.entities[1].attributes == ("grey",)


def test_vg_objects_that_name_each_other_become_one():
    a, b = node(1, "car", merged_object_ids=[2]), node(2, "car", merged_object_ids=[1])
    sample = scene_graphs.to_sample(vg_graph([(a, "near", node(3, "tree")), (b, "behind", node(3, "tree"))]))
    assert len(sample.entities) == 2
    assert {(r.predicate, r.object) for r in sample.relations} == {("near", "3"), ("behind", "3")}
    assert len({r.subject for r in sample.relations}) == 1


def test_vg_relations_go_with_their_degenerate_objects():
    flat = node(2, "line", (0, 0, 10, 0))
    sample = scene_graphs.to_sample(vg_graph([(node(1, "man"), "on", flat), (node(1, "man"), "is", node(1, "man"))]))
    assert [e.label for e in sample.entities] == ["man"] and sample.relations == ()


def test_vg_size_is_the_photos_then_image_data_then_the_extent():
    relations = [(node(1, "man", (-3, 2, 9.5, 10)), "on", node(2, "ice", (5, 5, 30, 20)))]
    assert [e.box for e in scene_graphs.to_sample(vg_graph(relations), (20, 20)).entities] == [
        (0, 2, 6.5, 12),
        (5, 5, 20, 20),
    ]
    with_data = scene_graphs.to_sample(vg_graph(relations, size=(50, 40)))
    without = scene_graphs.to_sample(vg_graph(relations))
    assert (with_data.width, with_data.height) == (50, 40)
    assert (without.width, without.height) == (35, 25)


def test_vg_names_the_image_with_a_missing_field():
    broken = {"object_id": 2, "name": "ice", "x": 1}
    with pytest.raises(UserError, match=r"image 1: field '[yw]'"):
        scene_graphs.to_sample(vg_graph([(node(1, "man"), "on", broken)]))


# GQA


def gqa_graph():
    man = {"name": "man", "x": 1, "y": 2, "w": 10, "h": 20, "attributes": ["tall"]}
    man["relations"] = [{"name": "to the left of", "object": "9"}, {"name": "riding", "object": "9"}]
    man["relations"].append({"name": "holding", "object": "11"})  # a rope without width
    horse = {"name": "horse", "x": 20, "y": 2, "w": 50, "h": 20, "attributes": [], "relations": []}
    thin = {"name": "rope", "x": 0, "y": 0, "w": 0, "h": 5, "relations": [{"name": "on", "object": "9"}]}
    return {"width": 40, "height": 30, "objects": {"5": man, "9": horse, "11": thin}}


def test_gqa_builds_scene_graphs(tmp_path):
    photo(tmp_path / "images" / "2407890.jpg")
    graphs = dump(tmp_path / "graphs.json", {"2407890": gqa_graph(), "1": gqa_graph()})
    assert run(gqa, "--scene-graphs", graphs, "--images", tmp_path / "images", "--out", tmp_path / "gqa") == 0
    sample = ShardSet(tmp_path / "gqa").read(0).sample
    assert [(e.id, e.label, e.box) for e in sample.entities] == [
        ("5", "man", (1, 2, 11, 22)),
        ("9", "horse", (20, 2, 40, 22)),
    ]
    assert sample.entities[0].attributes == ("tall",)
    assert sample.relations == (Relation("5", "to the left of", "9"), Relation("5", "riding", "9"))
    assert (tmp_path / "gqa" / "relations.txt").read_text() == "riding\nto the left of\n"
    assert (tmp_path / "gqa" / "skipped.txt").read_text() == "1.jpg: no such photo\n"


def test_gqa_names_the_image_with_relations_of_a_wrong_kind():
    graph = gqa_graph()
    graph["objects"]["5"]["relations"] = {"name": "on", "object": "9"}
    with pytest.raises(UserError, match="GQA image 3"):
        gqa.to_sample("3", graph)
