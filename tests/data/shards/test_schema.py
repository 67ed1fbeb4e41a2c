"""A record becomes a sample as it stands or not at all: nothing is converted, and the field at fault is named."""

import copy
import json
import math

import pytest

from relvlm.data.shards.schema import MAX_SIDE, Sample, SchemaError

RECORD = {
    "schema": 1,
    "image_id": "7",
    "width": 40,
    "height": 30,
    "source": "toy",
    "captions": ["a dog", "ein Hund im Gr\u00fcnen"],
    "entities": [
        {"id": "a", "label": "dog", "box": [0, 0, 40, 30], "attributes": ["red"]},
        {"id": "b", "label": "cat", "box": [1.5, 2, 3, 4]},
    ],
    "relations": [{"subject": "a", "predicate": "near", "object": "b"}],
}


def changed(path, value):
    record = copy.deepcopy(RECORD)
    *folders, name = path
    place = record
    for folder in folders:
        place = place[folder]
    place[name] = value
    return record


def test_a_sound_record_is_taken_as_it_stands():
    sample = Sample.from_json(copy.deepcopy(RECORD))
    assert sample.captions == tuple(RECORD["captions"])
    assert sample.entities[0].box == (0, 0, 40, 30) and sample.entities[1].attributes == ()
    assert Sample.from_json(json.loads(json.dumps(sample.to_json()))) == sample
    assert Sample.from_json({"schema": 1, "image_id": "7", "width": 1, "height": MAX_SIDE}).captions == ()


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("captions",), "a dog", "captions: 'a dog' is no list"),
        (("captions",), None, "captions: None is no list"),
        (("captions",), {"0": "a dog"}, "captions: .* is no list"),
        (("captions",), ["a dog", None], r"captions\[1\]: None is no text"),
        (("captions",), [7], r"captions\[0\]: 7 is no text"),
        (("captions",), ["\ud800"], "captions: .* half of a surrogate pair"),
        (("image_id",), 7, "image_id: 7 is no text"),
        (("source",), None, "source: None is no text"),
        (("width",), "40", "width: '40' is no number of pixels"),
        (("width",), 40.0, r"width: 40\.0 is no number of pixels"),
        (("width",), True, "width: True is no number of pixels"),
        (("height",), 0, "height: 0 is no number of pixels"),
        (("height",), MAX_SIDE + 1, "height: .* is no number of pixels"),
        (("entities",), {}, "entities: {} is no list"),
        (("entities", 1), "cat", r"entities\[1\]\.record: 'cat' is no JSON object"),
        (("entities", 1, "id"), 2, r"entities\[1\]\.id: 2 is no text"),
        (("entities", 1, "id"), "a", "entities: ids are not unique"),
        (("entities", 1, "label"), None, r"entities\[1\]\.label: None is no text"),
        (("entities", 0, "attributes"), "red", r"entities\[0\]\.attributes: 'red' is no list"),
        (("entities", 0, "attributes"), None, r"entities\[0\]\.attributes: None is no list"),
        (("entities", 0, "attributes"), [["red"]], r"entities\[0\]\.attributes\[0\]: .* is no text"),
        (("entities", 0, "box"), None, r"entities\[0\]\.box: None are not four numbers"),
        (("entities", 0, "box"), [1, 2, 3], r"entities\[0\]\.box: .* are not four numbers"),
        (("entities", 0, "box"), [0, 0, 4, "4"], r"entities\[0\]\.box: .* are not four numbers"),
        (("entities", 0, "box"), [False, 0, 4, 4], r"entities\[0\]\.box: .* are not four numbers"),
        (("entities", 0, "box"), [0, 0, math.nan, 4], r"entities\[0\]\.box: .* is empty or not inside 40x30"),
        (("entities", 0, "box"), [0, 0, math.inf, 4], r"entities\[0\]\.box: .* is empty or not inside"),
        (("entities", 0, "box"), [4, 0, 2, 4], r"entities\[0\]\.box: .* is empty or not inside"),
        (("entities", 0, "box"), [4, 0, 4, 4], r"entities\[0\]\.box: .* is empty or not inside"),
        (("entities", 0, "box"), [-0.1, 0, 4, 4], r"entities\[0\]\.box: .* is empty or not inside"),
        (("entities", 0, "box"), [0, 0, 40.1, 4], r"entities\[0\]\.box: .* is empty or not inside"),
        (("relations", 0, "object"), "c", r"relations\[0\]\.object: 'c' is the id of no entity"),
        (("relations", 0, "subject"), 0, r"relations\[0\]\.subject: 0 is no text"),
        (("relations", 0, "predicate"), None, r"relations\[0\]\.predicate: None is no text"),
        (("caption",), ["a dog"], r"caption: unknown field \(did you mean captions\?\)"),
        (("entities", 0, "labels"), "dog", r"entities\[0\]\.labels: unknown field \(did you mean label\?\)"),
        (("relations", 0, "xyzzy"), 1, r"relations\[0\]\.xyzzy: unknown field \(known are object, predicate"),
        (("schema",), "1", "schema: '1', this reader knows 1"),
        (("schema",), 2, "schema: 2, this reader knows 1"),
        (("schema",), True, "schema: True, this reader knows 1"),
    ],
)
def test_a_field_of_another_type_or_name_is_told(path, value, message):
    with pytest.raises(SchemaError, match=f"^{message}"):
        Sample.from_json(changed(path, value))


@pytest.mark.parametrize("name", ["image_id", "width", "height", "schema"])
def test_what_must_be_there_is_asked_for(name):
    record = {k: v for k, v in RECORD.items() if k != name}
    with pytest.raises(SchemaError, match=f"^{name}: (missing|None)"):
        Sample.from_json(record)


@pytest.mark.parametrize("record", [[], "x", None, 3])
def test_what_is_no_object_is_no_sample(record):
    with pytest.raises(SchemaError, match="is no JSON object"):
        Sample.from_json(record)


def test_a_side_goes_to_the_longest_of_a_png():
    assert MAX_SIDE == 2**31 - 1


def with_provenance(value):
    record = copy.deepcopy(RECORD)
    record["relations"][0]["provenance"] = value
    return record


@pytest.mark.parametrize("value", ["human", "boxes", "parser", "model"])
def test_a_relation_may_say_where_it_is_from(value):
    sample = Sample.from_json(with_provenance(value))
    assert sample.relations[0].provenance == value
    assert list(sample.to_json()["relations"]) == [{**RECORD["relations"][0], "provenance": value}]


def test_a_relation_that_does_not_say_is_written_as_ever():
    sample = Sample.from_json(copy.deepcopy(RECORD))
    assert sample.relations[0].provenance == "" and list(sample.to_json()["relations"]) == RECORD["relations"]


@pytest.mark.parametrize("value", ["", "guess", None, 1, ["boxes"]])
def test_no_other_provenance_is_known(value):
    with pytest.raises(SchemaError, match=r"relations\[0\]\.provenance: .* is none of human, boxes, parser, model"):
        Sample.from_json(with_provenance(value))


def test_the_same_relation_from_elsewhere_is_the_same():
    one, other = (Sample.from_json(with_provenance(value)).relations for value in ("boxes", "model"))
    assert one == other and len({*one, *other}) == 1
