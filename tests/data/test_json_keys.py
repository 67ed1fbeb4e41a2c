"""JSON objects in which a key stands twice."""

import json

import pytest

from relvlm.data.json_keys import RepeatedKeys, loads_unique, unique_keys


def test_an_object_of_unique_keys_is_a_dict():
    found = json.loads('{"a": 1, "b": {"a": 2}}', object_pairs_hook=unique_keys)
    assert found == {"a": 1, "b": {"a": 2}} and type(found) is type(found["b"]) is dict


def test_keys_that_stand_twice_or_more_are_named_and_no_others():
    found = json.loads('{"a": 1, "b": 2, "a": 3, "c": 4, "c": 5, "c": 6}', object_pairs_hook=unique_keys)
    assert isinstance(found, RepeatedKeys) and found == {"a": 3, "b": 2, "c": 6}
    assert found.repeated == {"a", "c"}


def test_the_strict_reader_refuses_them_at_any_depth():
    assert loads_unique(b'{"a": [{"b": 1}, {"b": 2}]}') == {"a": [{"b": 1}, {"b": 2}]}
    with pytest.raises(ValueError, match=r"^b, c: stands twice in one object$"):
        loads_unique(b'{"a": [{"c": 1, "b": 1, "c": 1, "b": 2}]}')
