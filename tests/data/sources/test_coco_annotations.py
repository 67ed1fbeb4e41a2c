"""COCO's annotations: what they say of an image, and what is left out."""

import json

import pytest
from support.raw_files import coco_files

from relvlm.data.sources import coco_annotations
from relvlm.data.sources.faults import Faults
from relvlm.errors import UserError


def test_coco_boxes_become_corners_and_stay_inside(tmp_path):
    boxes = [(1, 2, 10.5, 10), (35, -5, 10, 10), (3, 3, 0, 9), (39.5, 0, 9, 9)]
    captions, instances = (json.loads(f.read_text()) for f in coco_files(tmp_path, boxes))
    [(name, sample)] = coco_annotations.parse(captions, instances)
    assert name == "7.jpg" and sample.captions == ("A dog.",)
    assert [(e.label, e.box) for e in sample.entities] == [
        ("dog", (1, 2, 11.5, 12)),
        ("dog", (35, 0, 40, 5)),
    ]


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
