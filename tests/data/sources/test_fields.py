"""The fields of a raw record: each gives the type it says or a fault naming the field."""

import math

import pytest

from relvlm.data.json_keys import unique_keys
from relvlm.data.sources import fields
from relvlm.data.sources.faults import Faults, RecordFault

BIG = 10**18


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (7, "7"),
        (0, "0"),
        (-7, "-7"),
        (BIG - 1, str(BIG - 1)),
        (1 - BIG, str(1 - BIG)),
        (7.0, "7"),
        (2.0**53 - 1, str(2**53 - 1)),
        ("7", "7"),
        ("007", "7"),
        ("0", "0"),
        ("9" * 64, "9" * 64),
        ("a-b_C", "a-b_C"),
        ("x" * 64, "x" * 64),
    ],
)
def test_an_id_is_one_string_for_all_its_spellings(value, found):
    assert fields.identifier({"id": value}, "id") == found


@pytest.mark.parametrize(
    "value",
    [BIG, -BIG, 7.5, 2.0**53, -(2.0**53), math.nan, math.inf, "", "a/b", "x" * 65, "9" * 65, "é", "٣", None, True, []],
)
def test_what_is_no_id_is_a_fault(value):
    with pytest.raises(RecordFault, match=r"^id: no id"):
        fields.identifier({"id": value}, "id")


@pytest.mark.parametrize(("value", "found"), [(1, 1), (640.0, 640), (2**31 - 1, 2**31 - 1)])
def test_a_side_is_a_number_of_pixels(value, found):
    side = fields.side({"width": value}, "width")
    assert side == found and type(side) is int


@pytest.mark.parametrize("value", [0, -1, 2**31, 0.5, math.inf, math.nan, "640", True, None])
def test_what_is_no_side_is_a_fault(value):
    with pytest.raises(RecordFault, match=r"^width: no number of pixels"):
        fields.side({"width": value}, "width")


@pytest.mark.parametrize("value", [0, -1.5, 1e9 - 1, 1 - 1e9])
def test_a_number_is_finite_and_within_all_bounds(value):
    found = fields.as_number(value, "x")
    assert found == value and type(found) is float


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (1e9, "out of all bounds"),
        (-1e9, "out of all bounds"),
        (math.nan, "out of all bounds"),
        (10**400, "out of all bounds"),
        ("1", "no number"),
        (True, "no number"),
        (None, "no number"),
    ],
)
def test_other_numbers_are_faults(value, reason):
    with pytest.raises(RecordFault, match=f"^x: {reason}"):
        fields.as_number(value, "x")


@pytest.mark.parametrize(
    ("value", "reason"), [("a\ud800", "half of a surrogate pair"), (7, "no text"), (None, "no text")]
)
def test_a_text_is_a_string_that_utf_8_holds(value, reason):
    assert fields.text({"name": "é"}, "name") == "é"
    with pytest.raises(RecordFault, match=f"^name: {reason}"):
        fields.text({"name": value}, "name")


def test_a_field_that_is_not_there_is_missing():
    with pytest.raises(RecordFault, match=r"^name: missing"):
        fields.required({}, "name")


def test_a_record_is_an_object_of_unique_keys():
    assert fields.mapping({"a": 1}) == {"a": 1}
    with pytest.raises(RecordFault, match=r"^record: no JSON object"):
        fields.mapping([1])
    with pytest.raises(RecordFault, match=r"^record: a key stands twice: a, b$"):
        fields.mapping(unique_keys([("b", 1), ("a", 1), ("b", 2), ("a", 2)]))


def test_a_list_may_be_absent_and_another_type_is_one_fault():
    faults = Faults("toy")
    assert fields.optional_list({}, "boxes") == fields.optional_list({"boxes": None}, "boxes") == []
    assert list(fields.items(faults, "box", {"boxes": ["a", "b"]}, "boxes", "x")) == [(0, "a"), (1, "b")]
    assert not faults.read and not faults.lines
    assert list(fields.items(faults, "box", {"boxes": 7}, "boxes", "image 3")) == []
    assert faults.read == {"box": 1} and faults.lines == ["image 3: boxes: no list: 7"]


def test_ids_are_in_the_order_of_their_numbers_and_words_last():
    ids = ["b", "10", "-2", "9", "a", "-", "0"]
    assert sorted(ids, key=fields.id_order) == ["-2", "0", "9", "10", "-", "a", "b"]
