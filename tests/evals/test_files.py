"""Files that are read with errors by name, files that are whole or absent."""

import csv
import json
from pathlib import Path

import pytest

from relvlm.errors import UserError
from relvlm.evals.files import (
    annotation_files,
    piece_name,
    read_csv,
    read_json,
    read_jsonl,
    require,
    write_atomic,
    write_json,
)


def test_a_key_that_occurs_twice_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"x": {"b": 1, "c": 2, "b": 3}}')
    with pytest.raises(UserError, match="b: occurs twice"):
        read_json(path)
    path.write_text('{"x": {"b": 1}, "y": {"b": 1}}')
    assert read_json(path) == {"x": {"b": 1}, "y": {"b": 1}}


@pytest.mark.parametrize(
    ("content", "message"), [(b"{", "not JSON"), (b"\xff\xfe\xff", "not a text file"), (None, "no such file")]
)
def test_a_file_that_is_no_json_is_named(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(UserError, match=rf"a\.json: {message}"):
        read_json(tmp_path / "a.json")


def test_lines_are_numbered_from_1_and_blank_ones_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n\n{"a": 2}\n[3]\n')
    rows = read_jsonl(path)
    assert [next(rows), next(rows)] == [{"a": 1}, {"a": 2}]
    with pytest.raises(UserError, match="line 4: expected one object per line"):
        next(rows)
    path.write_bytes(b'{"a": 1}\n{"a": \xff}\n')
    with pytest.raises(UserError, match="line 2: not a text file"):
        list(read_jsonl(path))
    with pytest.raises(UserError, match="no such file"):
        list(read_jsonl(tmp_path / "none"))


def test_csv_rows_are_by_the_header(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('a,b\n1,"2,3"\n')
    assert read_csv(tmp_path / "a.csv") == [{"a": "1", "b": "2,3"}]


@pytest.mark.parametrize("text", ["two\nlines", "two\r\nlines", "one\u2028line", "one\x85line", 'a "quoted" word'])
def test_a_csv_field_is_what_stood_in_its_quotes(tmp_path: Path, text: str) -> None:
    with (tmp_path / "a.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["a", "b"], [text, "x"], ["y", text]])
    assert read_csv(tmp_path / "a.csv") == [{"a": text, "b": "x"}, {"a": "y", "b": text}]


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    for name, text in (("a.csv", "a,b\n1,2\n"), ("a.json", '{"a": "1"}'), ("a.jsonl", '{"a": "1"}\n')):
        (tmp_path / name).write_text(text, encoding="utf-8-sig")
    assert read_csv(tmp_path / "a.csv") == [{"a": "1", "b": "2"}]
    assert read_json(tmp_path / "a.json") == {"a": "1"}
    assert list(read_jsonl(tmp_path / "a.jsonl")) == [{"a": "1"}]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2,3\n", "line 2: 3 fields, the header has 2"),
        ("a,b\n1\n", "line 2: 1 fields"),
        ("a,b,a\n1,2,3\n", "a: occurs twice in the header"),
        ('a,b\n1,"2\n', "line 2: not CSV"),
    ],
)
def test_a_csv_row_that_does_not_fit_the_header_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        read_csv(tmp_path / "a.csv")


@pytest.mark.parametrize("text", ['{"a": 1, "a": 2}', "9" * 5000, "[" * 100_000])
def test_json_that_python_reads_wrongly_or_not_at_all_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(UserError, match=r"a\.json: (a: occurs twice|not JSON)"):
        read_json(tmp_path / "a.json")
    with pytest.raises(UserError, match=r"a\.json: line 1: (a: occurs twice|not JSON)"):
        list(read_jsonl(tmp_path / "a.json"))


def test_the_files_that_macos_leaves_beside_others_are_none(tmp_path: Path) -> None:
    for name in ("a.json", "._a.json"):
        (tmp_path / name).touch()
    assert annotation_files(tmp_path, "vsr", (".json",)) == [tmp_path / "a.json"]


def test_a_row_without_a_field_is_refused_with_what_it_has() -> None:
    require({"a": 0, "b": ""}, ("a", "b"), "here", "VSR")
    with pytest.raises(UserError, match=r"here: b: absent, this is no VSR file \(it has: a, c\)"):
        require({"a": 1, "c": 2}, ("a", "b"), "here", "VSR")
    with pytest.raises(UserError, match="a: absent"):
        require({"a": None}, ("a",), "here", "VSR")


def test_files_of_a_prefix_go_before_all_others(tmp_path: Path) -> None:
    for name in ("b.json", "a.json", "c.txt"):
        (tmp_path / name).touch()
    assert [p.name for p in annotation_files(tmp_path, "vsr", (".json",))] == ["a.json", "b.json"]
    (tmp_path / "vsr_b.json").touch()
    assert [p.name for p in annotation_files(tmp_path, "vsr", (".json",))] == ["vsr_b.json"]
    assert annotation_files(tmp_path / "c.txt", "vsr", (".json",)) == [tmp_path / "c.txt"]
    with pytest.raises(UserError, match=r"no \.csv or \.jsonl file in this folder \(give the vsr files\)"):
        annotation_files(tmp_path, "vsr", (".csv", ".jsonl"))
    with pytest.raises(UserError, match="no such file or folder"):
        annotation_files(tmp_path / "none", "vsr", (".json",))


def test_a_piece_is_named_without_the_benchmarks_prefix() -> None:
    assert piece_name(Path("valse_foil-it.json"), "valse") == piece_name(Path("foil-it.json"), "valse") == "foil-it"


def test_a_file_is_replaced_only_when_it_is_whole(tmp_path: Path) -> None:
    def lines():
        yield "new"
        raise RuntimeError

    path = tmp_path / "a/b.txt"
    write_atomic(path, ["old", "lines"])
    assert path.read_text() == "old\nlines\n"
    with pytest.raises(RuntimeError):
        write_atomic(path, lines())
    assert path.read_text() == "old\nlines\n"


def test_json_is_indented_and_nan_is_refused(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"a": ["é"]})
    assert (tmp_path / "a.json").read_text() == '{\n "a": [\n  "é"\n ]\n}\n'
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": ["é"]}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", float("nan"))
