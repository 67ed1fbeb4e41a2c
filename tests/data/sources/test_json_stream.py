"""Large JSON by records: what `json` would have given, or one error."""

import json
import math

import pytest

from relvlm.data.json_keys import RepeatedKeys
from relvlm.data.sources import json_stream
from relvlm.data.sources.meter import Meter
from relvlm.errors import UserError

VALUES = [
    1,
    12.5,
    -3e5,
    'a, ] "b" \u2028 é \U0001f600',
    None,
    True,
    [],
    {},
    [[1], {"a": [2]}],
    {"b": {"c": "]"}},
    "x" * 99,
]


@pytest.fixture(params=[1, 3, 64, 1 << 18])
def chunk(request, monkeypatch):
    monkeypatch.setattr(json_stream, "CHUNK", request.param)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("indent", [None, 2])
def test_items_are_those_of_json(chunk, tmp_path, encoding, indent):
    file = tmp_path / "a.json"
    file.write_text(json.dumps(VALUES, indent=indent, ensure_ascii=False) + "\n", encoding=encoding)
    assert list(json_stream.list_items(file)) == VALUES
    named = {str(n): value for n, value in enumerate(VALUES)}
    file.write_text(json.dumps(named, indent=indent, ensure_ascii=False), encoding=encoding)
    assert list(json_stream.object_items(file)) == list(named.items())
    texts = list(json_stream.object_texts(file))
    assert [(key, json_stream.value_of(text)) for key, text in texts] == list(named.items())


def test_what_json_would_lose_is_seen(tmp_path):
    file = tmp_path / "a.json"
    file.write_text('{"a": 1, "a": {"b": 1, "b": 2}, "c": NaN}')
    (_, first), (_, second), (_, third) = json_stream.object_items(file)
    assert first == 1 and isinstance(second, RepeatedKeys) and math.isnan(third)


@pytest.mark.parametrize("text", ["[]", " [ ] "])
def test_nothing_in_it(chunk, tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    assert list(json_stream.list_items(tmp_path / "a.json")) == []


@pytest.mark.parametrize(
    "text", ["", "[", "[1", "[1,", "[1 2]", "[1,]", "[1]]", "[1] x", '["a', "[1}", "[12", "[" * 100_000]
)
def test_a_damaged_file_is_one_error(chunk, tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(UserError, match=r"a\.json: not valid JSON"):
        list(json_stream.list_items(tmp_path / "a.json"))


@pytest.mark.parametrize("text", ['{"a" 1}', "{1: 2}", '{"a": 1,}', '{"a"}'])
def test_a_damaged_object_is_one_error(chunk, tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(UserError, match=r"a\.json: not valid JSON"):
        list(json_stream.object_items(tmp_path / "a.json"))


def test_another_top_level_is_said(tmp_path):
    (tmp_path / "a.json").write_text("[1]")
    with pytest.raises(UserError, match="top level is a list, expected a dict"):
        list(json_stream.object_items(tmp_path / "a.json"))


def test_no_more_than_a_chunk_is_held(tmp_path, monkeypatch):
    monkeypatch.setattr(json_stream, "CHUNK", 50)
    (tmp_path / "a.json").write_text(json.dumps(list(range(10_000))))
    meter = Meter()
    next(json_stream.list_items(tmp_path / "a.json", meter))
    assert meter.done <= 100 < meter.total


@pytest.mark.parametrize("indent", [None, 2])
def test_a_list_within_an_object(chunk, tmp_path, indent):
    file = tmp_path / "a.json"
    file.write_text(json.dumps({"info": {"a": [1]}, "b": VALUES, "empty": [], "c": [[2], 3]}, indent=indent))
    found = list(json_stream.nested_texts(file, ("c", "empty", "b")))
    assert [(name, item) for name, item, _ in found] == [*(("b", value) for value in VALUES), ("c", [2]), ("c", 3)]
    assert [json_stream.value_of(text) for *_, text in found] == [item for _, item, _ in found]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "'b' is missing"),
        ('{"b": 1}', "'b' is missing, or no list"),
        ('{"b": [1], "b": [2]}', "'b' stands twice"),
        ('{"b": [1}', "not valid JSON"),
        ('{"b": [1]', "not valid JSON"),
        ('{"b": [1],}', "not valid JSON"),
        ('{"b": [1]} x', "not valid JSON"),
        ("[]", "expected a dict"),
    ],
)
def test_a_damaged_object_with_a_list_is_one_error(chunk, tmp_path, text, message):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(UserError, match=message):
        list(json_stream.nested_texts(tmp_path / "a.json", ("b",)))
