"""Visual Genome's objects, merged, and their relations."""

import pytest
from support.raw_files import dump, node, vg_graph

from relvlm.data.shards.schema import Relation
from relvlm.data.sources import scene_graphs
from relvlm.data.sources.faults import Faults


def sample_of(graph, size=None):
    return scene_graphs.to_sample(graph, Faults("visual_genome"), size)


def test_vg_merges_objects_and_lower_cases_predicates():
    street = node(5, "street", (1, 1, 9, 9), attributes=["Wet"])
    sidewalk = node(7, "ignored", names=["Sidewalk "], merged_object_ids=[5], attributes=["grey", "sidewalk"])
    graph = vg_graph([(node(1, "man"), "ON ", street), (node(1, "man"), "on", sidewalk)], [street, sidewalk])
    sample = sample_of(graph)
    assert [(e.id, e.label) for e in sample.entities] == [("1", "man"), ("7", "sidewalk")]
    assert sample.relations == (Relation("1", "on", "7"),)
    assert sample.entities[1].attributes == ("grey",)


def test_vg_objects_that_name_each_other_become_one():
    a, b = node(1, "car", merged_object_ids=[2]), node(2, "car", merged_object_ids=[1])
    sample = sample_of(vg_graph([(a, "near", node(3, "tree")), (b, "behind", node(3, "tree"))]))
    assert len(sample.entities) == 2
    assert {(r.predicate, r.object) for r in sample.relations} == {("near", "3"), ("behind", "3")}
    assert len({r.subject for r in sample.relations}) == 1


def test_vg_relations_go_with_their_degenerate_objects():
    flat = node(2, "line", (0, 0, 10, 0))
    sample = sample_of(vg_graph([(node(1, "man"), "on", flat), (node(1, "man"), "is", node(1, "man"))]))
    assert [e.label for e in sample.entities] == ["man"] and sample.relations == ()


def test_vg_size_is_the_photos_then_image_data_then_the_extent():
    relations = [(node(1, "man", (-3, 2, 9.5, 10)), "on", node(2, "ice", (5, 5, 30, 20)))]
    assert [e.box for e in sample_of(vg_graph(relations), (20, 20)).entities] == [
        (0, 2, 6.5, 12),
        (5, 5, 20, 20),
    ]
    with_data = sample_of(vg_graph(relations, size=(50, 40)))
    without = sample_of(vg_graph(relations))
    assert (with_data.width, with_data.height) == (50, 40)
    assert (without.width, without.height) == (35, 25)


FAULTY = [
    ({"x": "2,5"}, "object", "x: no number"),
    ({"y": None}, "object", "y: no number"),
    ({"w": -1}, "object", "w, h: negative"),
    ({"h": float("nan")}, "object", "h: out of all bounds"),
    ({"h": True}, "object", "h: no number"),
    ({"name": None}, "object", "name: no text"),
    ({"names": "dog"}, "object", "names: no list"),
    ({"names": [7]}, "object", "names: no text"),
    ({"name": "\ud800"}, "object", "name: half of a surrogate pair"),
    ({"object_id": 2.5}, "object", "object_id: no id"),
    ({"object_id": None}, "object", "object_id: no id"),
    ({"merged_object_ids": 3}, "object", "merged_object_ids: no list"),
    ({"attributes": "red"}, "attribute", "attributes: no list"),
    ({"attributes": [None]}, "attribute", "attribute: no text"),
]


@pytest.mark.parametrize(("change", "kind", "reason"), FAULTY)
def test_vg_counts_and_lists_what_it_cannot_use(change, kind, reason):
    faults = Faults("visual_genome")
    bad = {**node(2, "ice"), **change}
    graph = vg_graph([(node(1, "man"), "on", node(3, "hill"))], [bad])
    sample = scene_graphs.to_sample(graph, faults)
    assert {"man", "hill"} <= {e.label for e in sample.entities} <= {"man", "hill", "ice"}
    assert ("ice" in {e.label for e in sample.entities}) == (kind == "attribute")
    assert faults.faults == {(kind, reason): 1}
    assert faults.lines[0].startswith("image 1: ") and reason in faults.lines[0]


@pytest.mark.parametrize("predicate", [None, 7, ["on"]])
def test_vg_has_no_class_none(predicate):
    faults = Faults("visual_genome")
    sample = scene_graphs.to_sample(vg_graph([(node(1, "man"), predicate, node(3, "hill"))]), faults)
    assert sample.relations == () and faults.faults == {("relation", "predicate: no text"): 1}


def test_vg_attributes_may_be_null():
    assert sample_of(vg_graph([], [node(1, "man", attributes=None)])).entities[0].attributes == ()


def test_vg_a_relation_survives_one_bad_mention_of_its_object():
    graph = vg_graph([(node(1, "man"), "on", {**node(2, "ice"), "x": None})], [node(2, "ice")])
    assert [r.predicate for r in sample_of(graph).relations] == ["on"]


def vg_files(folder, **contents):
    return scene_graphs.Files(**{name: dump(folder / f"{name}.json", content) for name, content in contents.items()})


def test_vg_an_image_that_comes_twice_keeps_all_of_its_records(tmp_path):
    relation = {"subject": node(1, "man"), "predicate": "on", "object": node(2, "ice")}
    other = {"subject": node(1, "man"), "predicate": "near", "object": node(3, "dog")}
    records = [{"image_id": 7, "relationships": [relation]}, {"image_id": "007", "relationships": [other]}]
    files = vg_files(tmp_path, relationships=records)
    [graph] = scene_graphs.read_graphs(files, Faults("visual_genome"))
    assert graph.image_id == "7"
    assert [r.predicate for r in sample_of(graph).relations] == ["on", "near"]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"image_id": None, "relationships": []}, "image_id: no id"),
        ({"image_id": 1.5, "relationships": []}, "image_id: no id"),
        ({"image_id": "a/b", "relationships": []}, "image_id: no id"),
        ({"image_id": 1, "relationships": None}, "relationships: no list"),
        ({"image_id": 1}, "relationships: missing"),
        ([], "record: no JSON object"),
    ],
)
def test_vg_counts_images_without_a_usable_record(tmp_path, record, reason):
    faults = Faults("visual_genome")
    files = vg_files(tmp_path, relationships=[record, {"image_id": 9.0, "relationships": []}])
    assert [g.image_id for g in scene_graphs.read_graphs(files, faults)] == ["9"]
    assert faults.faults == {("image", reason): 1}
    assert faults.lines[0].startswith("relationships.json[0]: ")


def test_vg_sizes_that_contradict_each_other_or_are_none_are_faults(tmp_path):
    faults = Faults("visual_genome")
    sizes = [{"image_id": 1, "width": w, "height": 6} for w in (8, 8.0, 9, None)]
    files = vg_files(tmp_path, relationships=[{"image_id": 1, "relationships": []}], image_data=sizes)
    assert next(scene_graphs.read_graphs(files, faults)).size == (8, 6)
    assert set(faults.faults) == {("size", "width, height: other than before"), ("size", "width: no number of pixels")}
