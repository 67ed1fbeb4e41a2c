"""Fields of annotations: what stood in the file, or one error that names file, record and field."""

import json
from pathlib import Path

import pytest

from relvlm.errors import UserError
from relvlm.evals.tasks.records import Record, arrays, keyed, lines, listed, listed_or_keyed, record

NAN = float("nan")


def of(**row: object) -> Record:
    return Record(row, "a.json: [7]", "VSR")


@pytest.mark.parametrize("value", [1, 1.5, NAN, True, None, [], ["a"], {}, "", " \n", "a\0", "\ud800"])
def test_a_text_is_a_string_that_says_something(value: object) -> None:
    with pytest.raises(UserError, match=r"^a\.json: \[7\]: a: "):
        of(a=value).text("a")
    with pytest.raises(UserError, match=r"^a\.json: \[7\]: a\[1\]: |^a\.json: \[7\]: a: "):
        of(a=["x", value]).texts("a", 2)


def test_a_text_is_kept_as_it_is() -> None:
    for text in ("a", " two  words\u2028", "名前", "1.0", "🐕"):
        assert of(a=text).text("a") == text
        assert of(a=[text, text]).texts("a") == [text, text]


@pytest.mark.parametrize(
    ("value", "flag"),
    [(1, True), (0, False), (1.0, True), (0.0, False), (True, True), ("True", True), ("false", False), ("1.0", True)],
)
def test_a_flag_is_one_in_each_of_its_spellings(value: object, flag: bool) -> None:
    assert of(a=value).flag("a") is flag


@pytest.mark.parametrize("value", [2, 0.5, -1, NAN, None, "yes", "", [], [1], {}])
def test_what_is_no_flag_is_refused(value: object) -> None:
    with pytest.raises(UserError, match=r"\[7\]: a: "):
        of(a=value).flag("a")


def test_a_whole_number_may_be_written_as_3_0_and_no_other_way() -> None:
    assert [of(a=value).whole("a") for value in (3, 3.0, 0, -2)] == [3, 3, 0, -2]
    for value in (1.5, NAN, float("inf"), "3", True, None, [3]):
        with pytest.raises(UserError, match=r"\[7\]: a: "):
            of(a=value).whole("a")


def test_an_identity_is_a_text_or_a_whole_number() -> None:
    assert (of(a=7).identity("a"), of(a="7").identity("a")) == ("7", "7")
    for value in (7.0, True, None, [7], NAN):
        with pytest.raises(UserError, match=r"\[7\]: a: "):
            of(a=value).identity("a")


def test_a_place_is_a_whole_number_from_0_on_or_its_digits() -> None:
    assert [of(a=value).place("a", 4) for value in (0, 3, 3.0, "2", " 0")] == [0, 3, 3, 2, 0]
    for value in (4, -1, "4", "-1", "", "1.0", "²", "9" * 5000, True, None, 0.5, [0]):
        with pytest.raises(UserError, match=r"\[7\]: a: "):
            of(a=value).place("a", 4)


def test_numbers_are_so_many_and_finite() -> None:
    assert of(a=[0, 1.5, -2]).numbers("a", 3) == [0, 1.5, -2]
    for value in (
        [0, 1],
        [0, 1, 2, 3],
        [0, 1, NAN],
        [0, 1, float("inf")],
        [0, 1, True],
        [0, 1, "2"],
        [0, 1, 10**400],
        3,
    ):
        with pytest.raises(UserError, match=r"\[7\]: a: .* is no list of 3 numbers"):
            of(a=value).numbers("a", 3)


def test_rows_of_a_list_of_lists_have_fields_by_place(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps([["x", 1], ["y", 2]]))
    assert [(r.text("[0]"), r.whole("[1]"), r.where) for r in arrays(path, "toy", 2)] == [
        ("x", 1, f"{path}: [0]"),
        ("y", 2, f"{path}: [1]"),
    ]
    with pytest.raises(UserError, match=r"a\.json: \[0\]: .* is no list of 3, this is no toy file"):
        arrays(path, "toy", 3)
    for content in ("{}", "[]", "3", '[{"a": 1}]', '["xy"]'):
        path.write_text(content)
        with pytest.raises(UserError, match=r"a\.json: "):
            arrays(path, "toy", 2)


@pytest.mark.parametrize("name", ["/etc/a.jpg", "../a.jpg", "b/../../a.jpg", ".."])
def test_a_photos_name_stays_within_the_folder(name: str) -> None:
    assert of(a="b/..a.jpg").image("a") == "b/..a.jpg"
    with pytest.raises(UserError, match=r"\[7\]: a: .* leads out of the folder"):
        of(a=name).image("a")


def test_a_field_within_another_is_named_with_it() -> None:
    with pytest.raises(UserError, match=r"^a\.json: \[7\]: b\.c: absent"):
        of(b={"d": 1}).record("b").text("c")
    with pytest.raises(UserError, match=r"^a\.json: \[7\]: b\[1\]\.c: 3 is no text"):
        of(b=[{"c": "x"}, {"c": 3}]).records("b")[1].text("c")
    for value in ([], 3, {}, "x", None, [{}, 3]):
        with pytest.raises(UserError, match=r"\[7\]: b"):
            of(b=value).records("b")


@pytest.mark.parametrize("name", ["heldout", "Held_Out", "held-out", "held out", "held_ot"])
def test_a_misspelt_field_is_named_with_the_right_one(name: str) -> None:
    fields = ("image", "held_out")
    record({"image": "a", "held_out": 1, "out": 1, "id": 1}, "here", "VSR", fields)
    with pytest.raises(UserError, match=rf"here: {name}: no field of VSR files \(is held_out meant"):
        record({"image": "a", name: 1}, "here", "VSR", fields)


@pytest.mark.parametrize("read", [listed, keyed, listed_or_keyed, lines])
@pytest.mark.parametrize("content", ["[]", "", "3", "null", '"x"', "[3]", "[[]]", "\n \n"])
def test_a_file_without_records_is_refused(tmp_path: Path, read, content: str) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(UserError, match=r"a\.json: "):
        read(tmp_path / "a.json", "VSR", ("image",))


def test_the_top_level_is_what_the_benchmark_has(tmp_path: Path) -> None:
    row, path = {"image": "a"}, tmp_path / "a.json"
    path.write_text(json.dumps([row]))
    assert (
        [r.row for r in listed(path, "VSR", ())] == [r.row for r in listed_or_keyed(path, "VSR", ()).values()] == [row]
    )
    with pytest.raises(UserError, match="expected one object of examples"):
        keyed(path, "VSR", ())
    path.write_text(json.dumps({"k": row}))
    assert {k: r.row for k, r in keyed(path, "VSR", ()).items()} == {"k": row}
    assert listed_or_keyed(path, "VSR", ()) == keyed(path, "VSR", ())
    with pytest.raises(UserError, match="expected a list of examples"):
        listed(path, "VSR", ())


def test_a_long_value_is_shown_cut():
    with pytest.raises(UserError, match=r"""^a\.json: text: \['x{55}\.\.\. is no text"""):
        record({"text": ["x" * 500]}, "a.json", "toy").text("text")
