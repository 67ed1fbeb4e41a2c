"""GQA: scene graphs of photos."""

import json

import pytest
from support.raw_files import dump, gqa_graph, photo, run

from relvlm.data.shards.schema import Relation
from relvlm.data.shards.store import ShardSet
from relvlm.data.sources import gqa
from relvlm.data.sources.faults import Faults
from relvlm.data.sources.meter import Meter
from relvlm.errors import UserError


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


def changed(place, value):
    """The graph with `value` at (object id, field) or (field,)."""
    graph = gqa_graph()
    target = graph["objects"][place[0]] if len(place) == 2 else graph
    target[place[-1]] = value
    return graph


@pytest.mark.parametrize(
    ("place", "value", "kind", "reason"),
    [
        (("5", "x"), "2,5", "object", "x: no number"),
        (("5", "w"), None, "object", "w: no number"),
        (("5", "h"), -3, "object", "w, h: negative"),
        (("5", "name"), None, "object", "name: no text"),
        (("5", "name"), ["man"], "object", "name: no text"),
        (("5", "attributes"), "red", "attribute", "attributes: no list"),
        (("5", "attributes"), ["red", 3], "attribute", "attribute: no text"),
        (("5", "relations"), {"name": "on", "object": "9"}, "relation", "relations: no list"),
        (("5", "relations"), ["on"], "relation", "relation: no JSON object"),
        (("5", "relations"), [{"name": None, "object": "9"}], "relation", "name: no text"),
        (("5", "relations"), [{"name": "on", "object": "77"}], "relation", "object: names no object"),
        (("5", "relations"), [{"name": "on"}], "relation", "object: missing"),
    ],
)
def test_gqa_counts_and_lists_what_it_cannot_use(place, value, kind, reason):
    faults = Faults("gqa")
    sample = gqa.to_sample("3", changed(place, value), faults)
    labels = [e.label for e in sample.entities]
    assert labels == (["horse"] if kind == "object" else ["man", "horse"])
    assert faults.faults == {(kind, reason): 1}
    assert faults.lines[0].startswith("image 3: objects[")


@pytest.mark.parametrize(
    ("place", "value", "reason"),
    [
        (("width",), None, "width: no number of pixels"),
        (("width",), 40.5, "width: no number of pixels"),
        (("height",), "30", "height: no number of pixels"),
        (("objects",), None, "objects: no JSON object"),
        (("objects",), [], "objects: no JSON object"),
    ],
)
def test_gqa_leaves_out_a_graph_that_is_none(tmp_path, place, value, reason):
    photo(tmp_path / "images" / "1.jpg")
    photo(tmp_path / "images" / "2.jpg")
    graphs = dump(tmp_path / "graphs.json", {"1": gqa_graph(), "2": changed(place, value)})
    faults = Faults("gqa")
    manifest, skipped = gqa.build(graphs, tmp_path / "images", tmp_path / "gqa", faults=faults)
    assert manifest["totals"]["samples"] == 1 and skipped == 0
    assert faults.faults == {("image", reason): 1} and faults.lines[0].startswith(f"image 2: {reason}")
    assert faults.lines[0] in (tmp_path / "gqa" / "build.log").read_text()


def test_gqa_attributes_and_relations_may_be_null_or_missing():
    graph = gqa_graph()
    graph["objects"]["5"].update(attributes=None, relations=None)
    del graph["objects"]["9"]["attributes"], graph["objects"]["9"]["relations"]
    faults = Faults("gqa")
    sample = gqa.to_sample("3", graph, faults)
    assert [e.attributes for e in sample.entities] == [(), ()] and not faults.faults


def test_gqa_an_id_in_numbers_meets_its_object():
    graph = changed(("5", "relations"), [{"name": "on", "object": 9}, {"name": "near", "object": "09"}])
    sample = gqa.to_sample("3", graph, Faults("gqa"))
    assert sample.relations == (Relation("5", "on", "9"), Relation("5", "near", "9"))


def test_gqa_a_graph_that_stands_twice_is_left_out(tmp_path):
    photo(tmp_path / "images" / "1.jpg")
    graph = json.dumps(gqa_graph())
    (tmp_path / "graphs.json").write_text(f'{{"1": {graph}, "7": {graph}, "7": {graph}}}')
    faults = Faults("gqa")
    manifest, _ = gqa.build(tmp_path / "graphs.json", tmp_path / "images", tmp_path / "gqa", faults=faults)
    assert manifest["totals"]["samples"] == 1
    assert faults.faults == {("image", "image id: stands twice"): 1}


def test_gqa_an_object_with_a_key_twice_is_left_out(tmp_path):
    photo(tmp_path / "images" / "1.jpg")
    graph = json.dumps(gqa_graph()).replace('"x": 20', '"x": 20, "x": 21')
    (tmp_path / "graphs.json").write_text(f'{{"1": {graph}}}')
    faults = Faults("gqa")
    gqa.build(tmp_path / "graphs.json", tmp_path / "images", tmp_path / "gqa", faults=faults)
    assert faults.faults == {("object", "object: a key stands twice"): 1}
    assert [e.label for e in ShardSet(tmp_path / "gqa").read(0).sample.entities] == ["man"]


def test_an_image_is_named_by_its_id(tmp_path):
    graphs = dump(tmp_path / "graphs.json", {"7": {}})
    [item] = gqa.Gqa(graphs, tmp_path).items(Faults("gqa"), Meter())
    assert (item.image_id, item.photo.name, item.key) == ("7", "7.jpg", "00000007")


def build_with(tmp_path, *flags):
    """A graph in which 5 is left of 9 and riding it, and 9 right of 5."""
    photo(tmp_path / "images" / "1.jpg")
    graph = changed(("9", "relations"), [{"name": "to the right of", "object": "5"}])
    graphs = dump(tmp_path / "graphs.json", {"1": graph})
    run(gqa, "--scene-graphs", graphs, "--images", tmp_path / "images", "--out", tmp_path / "gqa", *flags)
    return [r.predicate for r in ShardSet(tmp_path / "gqa").read(0).sample.relations]


def test_a_fixed_list_of_predicates_stays_whatever_is_found(tmp_path):
    (tmp_path / "relations.txt").write_text("to the left of\nholding\n")
    assert build_with(tmp_path, "--relations", tmp_path / "relations.txt") == ["to the left of"]
    assert (tmp_path / "gqa" / "relations.txt").read_text() == "to the left of\nholding\n"
    log = (tmp_path / "gqa" / "build.log").read_text()
    assert "2 of 5 relation records left out, by rule: predicate: not in --relations" in log


def test_a_byte_order_mark_is_no_part_of_the_first_predicate(tmp_path):
    (tmp_path / "relations.txt").write_text("riding\nholding\n", encoding="utf-8-sig")
    assert build_with(tmp_path, "--relations", tmp_path / "relations.txt") == ["riding"]
    assert (tmp_path / "gqa" / "relations.txt").read_bytes() == b"riding\nholding\n"


@pytest.mark.parametrize(("mirrored", "kept"), [("keep", 3), ("drop", 2)])
def test_the_mirrored_of_a_pair_is_kept_or_dropped_and_counted(tmp_path, mirrored, kept):
    assert len(build_with(tmp_path, "--mirrored", mirrored)) == kept
    assert ("the other way round" in (tmp_path / "gqa" / "build.log").read_text()) == (mirrored == "drop")


@pytest.mark.parametrize("text", ["", "on\non\n", "On\n"])
def test_an_odd_list_of_predicates_is_an_error(tmp_path, text):
    (tmp_path / "relations.txt").write_text(text)
    with pytest.raises(UserError, match=r"relations\.txt: .*check --relations"):
        build_with(tmp_path, "--relations", tmp_path / "relations.txt")
