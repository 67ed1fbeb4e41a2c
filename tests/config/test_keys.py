"""The list of keys: each once, with type, default and a word of explanation."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

import pytest

from relvlm.config.keys import Key, listing, sections
from relvlm.config.load import to_tree
from relvlm.config.schema import Config


@dataclass
class Inner:
    """The inner one.

    More of it.
    """

    kind: Annotated[Literal["a", "b"], "which"] = "a"
    path: Annotated[str, "where"] = field(kw_only=True)


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
    numbers: Annotated[list[float], "some", "a marker"] = field(default_factory=lambda: [1e-4])
    name: Annotated[str | None, "its name"] = None
    on: Annotated[bool, "whether"] = True


def test_types_and_defaults_are_written_as_yaml_has_them():
    assert next(sections(Outer)).keys == [
        Key("numbers", "list of float", "[0.0001]", "some"),
        Key("name", "str | null", "null", "its name"),
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
        Key("one.path", "str", None, "where"),
    ]


def test_a_field_without_a_word_is_an_error():
    @dataclass
    class Bare:
        """A bare one."""

        x: int = 0

    with pytest.raises(TypeError, match=r"^below\.x: without a word"):
        list(sections(Bare, "below"))


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
    assert lines[line + 1] == "      ALBEF's or X-VLM's"
    assert "model.vision: (kind: swin) Swin transformer (X-VLM); a stage has twice the channels" in listing()
