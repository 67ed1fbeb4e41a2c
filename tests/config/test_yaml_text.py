"""YAML as JSON and YAML 1.2 have it: what a number is, and no key twice."""

import json

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from relvlm.config.yaml_text import read, write


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-06", 1e-6),
        ("1E5", 1e5),
        ("2.e-3", 2e-3),
        ("-.5e+3", -500.0),
        ("010", 10),
        ("500_000", 500_000),
        ("0x1f", 31),
        ("0o17", 15),
        ("+3", 3),
        ("-7", -7),
        (".inf", float("inf")),
        ("1:30", "1:30"),
        ("2026-11-30", "2026-11-30"),
        ("1.2.3", "1.2.3"),
        ("1e", "1e"),
        ("e5", "e5"),
        (r'"\ud83d\ude00"', "\N{GRINNING FACE}"),
        ("0b1", "0b1"),
        ('"1e5"', "1e5"),
    ],
)
def test_a_number_is_what_yaml_1_2_takes_for_one(text, value):
    found = read(text)
    assert found == value and type(found) is type(value)


numbers = st.floats(allow_nan=False, allow_infinity=False) | st.integers()


@given(st.dictionaries(st.text(max_size=8), numbers | st.text(max_size=8) | st.booleans() | st.none(), max_size=4))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_what_is_written_is_read_as_the_same_and_so_is_json(tree):
    assert read(write(tree)) == tree
    assert read(json.dumps(tree)) == tree


@pytest.mark.parametrize("text", ["1e5", "010", "1_0", "1:30", "~", "no", "null", "2026-11-30", "0x1f", ".5", "=", ""])
def test_a_string_that_looks_like_something_else_stays_a_string(text):
    assert read(write({"name": text})) == {"name": text}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps: 1\nseed: 2\nsteps: 3\n", "'steps' is given twice, in line 1 and in line 3"),
        ("a: {b: 1}\nc:\n  d: 1\n  e: 2\n  d: 1\n", "'d' is given twice, in line 3 and in line 5"),
        ('{"a": 1,\n "a": 1}', "'a' is given twice, in line 1 and in line 2"),
        ("a: [{b: 1, b: 2}]", "'b' is given twice, in line 1"),
        (r'a: "\ud83d"', "half a character"),
        ("? [1, 2]\n: 3\n", "line 1: a key must be a word"),
    ],
)
def test_a_key_is_given_once(text, message):
    with pytest.raises(yaml.YAMLError) as caught:
        read(text)
    assert message in str(caught.value)


def test_the_same_key_in_two_mappings_is_no_repetition():
    assert read("a: {x: 1}\nb: {x: 2}\n") == {"a": {"x": 1}, "b": {"x": 2}}


def test_an_anchor_that_is_merged_may_be_overruled():
    assert read("a: &a {x: 1, y: 1}\nb: {<<: *a, x: 2}\n")["b"] == {"x": 2, "y": 1}
