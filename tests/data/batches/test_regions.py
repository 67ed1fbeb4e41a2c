import json
from collections import Counter
from random import Random

import pytest

from relvlm.config.schema import RelationWeights
from relvlm.data.batches.regions import (
    box_region,
    box_to_patches,
    choose_entities,
    choose_relations,
    crop_around,
    describe,
    draw_relations,
    place,
    read_relations,
    visible_part,
    whole_region,
)
from relvlm.data.batches.transforms import flip_box
from relvlm.data.shards.schema import Entity, Relation, Sample
from relvlm.errors import UserError


def from_xywh(box):
    x, y, w, h = box
    return (x, y, x + w, y + h)


def mask_of(patches, side):
    """The official mask: [CLS], then rows of patches."""
    x0, y0, x1, y1 = patches
    return [1] + [int(x0 <= x < x1 and y0 <= y < y1) for y in range(side) for x in range(side)]


def test_box_to_patches_equals_the_official_masks(shared):
    cases = json.loads((shared / "parity/box_patch_cases.json").read_text())["cases"]
    assert len(cases) == 200
    for case in cases:
        patches = box_to_patches(from_xywh(case["box_xywh"]), case["image_res"], case["patch_size"])
        assert mask_of(patches, case["num_patch"]) == case["mask"], case["box_xywh"]


def region_cases(shared):
    return json.loads((shared / "parity/region_pipeline_cases.json").read_text())["cases"]


def geometry(case):
    """The crop and the boxes as they are in the image that was (or was not) mirrored first."""
    boxes = [from_xywh(e["bb"]) for e in case["elems"]]
    crop = from_xywh(case["crop_xywh"])
    if case["hflip"]:
        width = case["image_size"][0]
        return flip_box(crop, width), [flip_box(b, width) for b in boxes]
    return crop, boxes


def test_regions_equal_the_official_targets_and_masks(shared):
    cases, checked = region_cases(shared), 0
    for case in cases:
        crop, boxes = geometry(case)
        size, patch = case["image_res"], case["patch_size"]
        for kept in case["kept"]:
            if kept["is_image"]:
                region = whole_region(size, patch)
            else:
                part = visible_part(boxes[kept["elem"]], crop)
                region = box_region(place(part, crop, size), size, patch)
            assert region.whole == bool(kept["is_image"])
            assert region.target == pytest.approx(kept["target_bbox"], abs=1e-6)
            assert mask_of(region.patches, size // patch) == kept["mask"]
            checked += 1
    assert checked > len(cases)


def test_official_pipeline_keeps_what_is_visible(shared):
    for case in region_cases(shared):
        crop, boxes = geometry(case)
        visible = {i for i, box in enumerate(boxes) if visible_part(box, crop) is not None}
        kept = {k["elem"] for k in case["kept"] if not k["is_image"]}
        room = case["max_regions"] - case["image_caption"]
        assert kept <= visible
        assert len(kept) == min(room, len(visible))


def scene(count, width=100, height=80):
    entities = tuple(Entity(str(i), f"label {i}", (i * 5.5, i * 4, i * 5.5 + 12.5, i * 4 + 9)) for i in range(count))
    return Sample("1", width, height, entities=entities)


def test_crop_keeps_the_box_whole():
    rng, box = Random(0), (10.5, 20.0, 60.25, 79.5)
    crops = {crop_around(box, 100, 80, rng) for _ in range(200)}
    assert len(crops) > 50
    for x0, y0, x1, y1 in crops:
        assert 0 <= x0 <= 10.5 and 0 <= y0 <= 20
        assert 60.25 <= x1 <= 100 and y1 == 80


def test_half_visible_is_not_enough():
    assert visible_part((0, 0, 10, 10), (5, 0, 50, 50)) is None
    assert visible_part((0, 0, 10, 10), (4, 0, 50, 50)) == (4, 0, 10, 10)
    assert visible_part((0, 0, 10, 10), (10, 0, 50, 50)) is None


@pytest.mark.parametrize(("limit", "expected"), [(4, 4), (20, 10)])
def test_entities_are_chosen_without_repeats(limit, expected):
    chosen = choose_entities(scene(10), (0, 0, 100, 80), limit, Random(1))
    assert len({entity.id for entity, _ in chosen}) == len(chosen) == expected


def test_entities_outside_the_crop_are_left_out():
    chosen = choose_entities(scene(10), (0, 0, 20, 20), 20, Random(1))
    assert {entity.id for entity, _ in chosen} == {"0", "1", "2"}


def test_describe_draws_one_attribute():
    entity = Entity("a", "cube", (0, 0, 1, 1), ("red", "large"))
    assert {describe(entity, Random(i)) for i in range(20)} == {"red cube", "large cube"}
    assert describe(Entity("a", "cube", (0, 0, 1, 1)), Random(0)) == "cube"


def graph(pairs, predicate="on"):
    relations = tuple(Relation(s, predicate, o) for s, o in pairs)
    return Sample("1", 100, 80, entities=scene(6).entities, relations=relations)


def test_relations_respect_both_limits():
    pairs = [("0", "1"), ("2", "3"), ("4", "5"), ("1", "0"), ("1", "2")]
    for seed in range(20):
        chosen, unknown = choose_relations(graph(pairs), {"on": 0}, 2, 3, Random(seed))
        entities = {e for r in chosen for e in (r.subject, r.object)}
        assert unknown == 0
        assert 1 <= len(chosen) <= 2
        assert len(entities) <= 3


PROVENANCES = ("", "human", "boxes", "parser")


def drawn(weights, limit=1, seeds=400):
    relations = [Relation("0", p or "none", "1", p) for p in PROVENANCES]
    found = [draw_relations(relations, limit, weights, Random(seed)) for seed in range(seeds)]
    return Counter(r.provenance for chosen in found for r in chosen)


def test_equal_weights_draw_as_no_weights_do():
    relations = [Relation("0", p or "none", "1", p) for p in PROVENANCES]
    for limit in (1, 3, 9):
        a, b = Random(3), Random(3)
        assert draw_relations(relations, limit, RelationWeights(), a) == b.sample(relations, min(limit, 4))
        assert a.random() == b.random()


def test_relations_are_drawn_by_their_provenances_weight():
    counts = drawn(RelationWeights(boxes=0.25, parser=0.001))
    assert counts["parser"] <= 3
    assert 140 <= counts[""] <= 215 and 140 <= counts["human"] <= 215  # 4 of 9 of 400
    assert 25 <= counts["boxes"] <= 65  # 1 of 9
    assert drawn(RelationWeights(boxes=0.25), limit=9, seeds=1).total() == 4


def test_two_disjoint_relations_fill_four_entities():
    chosen, _ = choose_relations(graph([("0", "1"), ("2", "3")]), {"on": 0}, 2, 4, Random(0))
    assert len(chosen) == 2


def test_unknown_predicates_are_counted():
    assert choose_relations(graph([("0", "1"), ("2", "3")]), {"under": 0}, 2, 4, Random(0)) == ([], 2)


def test_relation_vocabulary(tmp_path):
    file = tmp_path / "relations.txt"
    file.write_text("on\nleft of\n\n")
    assert read_relations(file) == {"on": 0, "left of": 1}
    file.write_text("on\non\n")
    with pytest.raises(UserError, match="repeated"):
        read_relations(file)
    with pytest.raises(UserError, match="no such file"):
        read_relations(tmp_path / "absent.txt")


def test_a_relation_file_may_have_a_mark_and_only_line_feeds_end_a_line(tmp_path):
    file = tmp_path / "relations.txt"
    file.write_bytes("\ufeffon\r\nleft\u2028of\r\n".encode())
    assert read_relations(file) == {"on": 0, "left\u2028of": 1}
    file.write_bytes(b"\xff\xfeo\0n\0")
    with pytest.raises(UserError, match=r"relations\.txt: data\.relations: not UTF-8"):
        read_relations(file)


def test_a_box_is_visible_when_more_than_half_of_it_is():
    assert visible_part((0, 0, 10, 10), (5, 0, 20, 20)) is None
    assert visible_part((0, 0, 10, 10), (4.9, 0, 20, 20)) == (4.9, 0, 10, 10)
    assert visible_part((0, 0, 10, 10), (10, 0, 20, 20)) is visible_part((0, 0, 10, 10), (0, 10, 20, 20)) is None
