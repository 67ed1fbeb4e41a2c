"""The list of keys: each once, with type, default and a word of explanation."""

import json
from dataclasses import dataclass, field
from typing import Annotated, Literal

import pytest

from relvlm.config.keys import Key, all_keys, is_key, json_listing, key_of, listing, near_keys, sections
from relvlm.config.load import to_tree
from relvlm.config.ranges import BY_CONTENT, FREE, NAME, NEVER, PATH, Length, Range
from relvlm.config.schema import Config


@dataclass
class Inner:
    """The inner one.

    More of it.
    """

    kind: Annotated[Literal["a", "b"], "which"] = "a"
    path: Annotated[str, "where", PATH, BY_CONTENT] = field(kw_only=True)


@dataclass
class Other:
    """The other one."""

    kind: Annotated[Literal["c"], "which"] = "c"


@dataclass
class Outer:
    """The outer one."""

    one: Inner
    either: Inner | Other
    many: list[Inner]
    numbers: Annotated[list[float], "some", Length(1, 2, Range(0)), FREE] = field(default_factory=lambda: [1e-4])
    name: Annotated[str | None, "its name", NAME, NEVER] = None
    on: Annotated[bool, "whether"] = True


def test_types_and_defaults_are_written_as_yaml_has_them():
    assert next(sections(Outer)).keys == [
        Key("numbers", "list of float", "[0.0001]", "some", "1 to 2 entries, each at least 0, finite", "free"),
        Key("name", "str | null", "null", "its name", "not empty", "never"),
        Key("on", "bool", "true", "whether"),
    ]


def test_sections_below_have_their_path_and_what_chooses_them():
    found = [(s.path, s.meaning, [k.path for k in s.keys]) for s in sections(Outer)]
    assert found[1:] == [
        ("one", "The inner one.", ["one.kind", "one.path"]),
        ("either", "(kind: a or b) The inner one.", ["either.kind", "either.path"]),
        ("either", "(kind: c) The other one.", ["either.kind"]),
        ("many[]", "The inner one.", ["many[].kind", "many[].path"]),
    ]


def test_what_has_no_default_is_required():
    assert next(s for s in sections(Outer) if s.path == "one").keys == [
        Key("one.kind", "a | b", "a", "which"),
        Key("one.path", "str", None, "where", "not empty; ~ and $VAR are expanded", by_content=True, is_path=True),
    ]


def test_a_field_without_a_word_is_an_error():
    @dataclass
    class Bare:
        """A bare one."""

        x: int = 0

    with pytest.raises(TypeError, match=r"^below\.x: without a word"):
        list(sections(Bare, "below"))


def test_a_field_without_a_range_is_an_error():
    @dataclass
    class Endless:
        """An endless one."""

        x: Annotated[int, "how much"] = 0

    with pytest.raises(TypeError, match=r"^below\.x: without a range"):
        list(sections(Endless, "below"))


@pytest.mark.parametrize("path", ["optim.lr", "optim", "data.captions", "data.captions[3].path", "model.vision.kind"])
def test_keys_and_sections_are_known(path):
    assert is_key(path)


@pytest.mark.parametrize("path", ["optim.l", "optim.lr.x", "data.captions[x].path", "", "lr", "opti"])
def test_what_is_neither_is_not(path):
    assert not is_key(path)


def test_a_value_in_a_list_has_the_key_of_its_entries():
    key = key_of("data.graphs[12].path")
    assert key and key.path == "data.graphs[].path" and key.by_content


def test_the_list_for_programs_has_every_key():
    listed = json.loads(json_listing())
    assert [row["path"] for row in listed] == [key.path for key in all_keys()]
    (flip,) = (row for row in listed if row["path"] == "data.flip")
    assert (flip["range"], flip["resume"]) == ("at least 0 and at most 1", "accept")


def test_every_key_of_a_config_is_listed():
    def leaves(tree: dict, path: str = "") -> set[str]:
        below = (leaves(v, f"{path}{k}.") if isinstance(v, dict) else {f"{path}{k}"} for k, v in tree.items())
        return set().union(*below)

    listed = {key.path for section in sections() for key in section.keys}
    lists = {f"data.{name}" for name in ("captions", "entities", "graphs", "joint")}
    assert leaves(to_tree(Config())) - lists <= listed
    assert {f"{name}[].path" for name in lists} | {"model.vision.depths"} <= listed


def test_every_section_and_key_of_the_config_has_a_meaning_of_its_own():
    for section in sections():
        assert len(section.meaning) > 3 and "(name:" not in section.meaning
        assert all(len(key.meaning) > 3 for key in section.keys)


def test_the_listing_has_a_line_for_each_key():
    lines = listing().splitlines()
    assert lines[0] == "top level: A run."
    assert "  data.captions[].path: str (required)" in lines
    line = lines.index("  model.itm_head: linear | mlp = linear")
    assert lines[line + 1 : line + 3] == ["      ALBEF's or X-VLM's", "      at a resume: must stay"]
    assert "model.vision: (kind: swin) Swin transformer (X-VLM); a stage has twice the channels" in listing()


def test_a_key_that_is_none_has_the_nearest_for_a_hint():
    assert near_keys("optim.lrr") == " (did you mean 'optim.lr'?)"
    assert near_keys("zzzzzz") == ""


def test_the_list_for_programs_has_a_line_for_each_value():
    assert json_listing().startswith('[\n {\n  "path": "')
