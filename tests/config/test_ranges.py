"""Every field of the schema: what is below its range, above it or of another type is refused by its dotted key."""

import math
from dataclasses import dataclass
from typing import Any, get_args, get_origin, get_type_hints

import pytest

from relvlm.config.keys import all_keys
from relvlm.config.load import load_config
from relvlm.config.ranges import Length, Limits, Range, Text, limits_of
from relvlm.config.schema import Config
from relvlm.errors import UserError

SWIN = ["model.vision={kind: swin}"]


@dataclass(frozen=True)
class Field:
    """A leaf of the schema, and the overrides that bring its section into being."""

    path: str
    kind: Any
    limits: Limits | None
    section: tuple[str, ...] = ()


def fields(kind: Any = Config, path: str = "", section: tuple[str, ...] = ()):
    for name, hint in get_type_hints(kind, include_extras=True).items():
        where = f"{path}{name}"
        if hasattr(hint, "__metadata__"):
            inner, *marks = get_args(hint)
            inner = get_args(inner)[0] if type(None) in get_args(inner) else inner
            yield Field(where, inner, limits_of(tuple(marks)), section)
        elif get_origin(hint) is list:
            yield from fields(get_args(hint)[0], f"{where}[0].", section)
        elif len(get_args(hint)) == 2:
            vit, swin = get_args(hint)
            yield from fields(vit, f"{where}.", section)
            yield from fields(swin, f"{where}.", tuple(SWIN))
        else:
            yield from fields(hint, f"{where}.", section)


FIELDS = [pytest.param(field, id=f"{field.path}{'(swin)' if field.section else ''}") for field in fields()]
every_field = pytest.mark.parametrize("field", FIELDS)


def out_of(limits: Limits | None, whole: bool) -> list[str]:
    """Values that limits leave out, as YAML: on each side of each edge, and none at all."""
    if isinstance(limits, Range):
        step = 1 if whole else 1e-3
        below = limits.low if limits.above else limits.low - step
        above = [] if math.isinf(limits.high) else [limits.high if limits.below else limits.high + step]
        return [f"{v:.3f}" if not whole else str(int(v)) for v in [below, *above]] + [".inf", "-.inf", ".nan"]
    if isinstance(limits, Text):
        return ["''", "' '", '"a\\nb"', '"a\\0b"']
    if isinstance(limits, Length):
        entries = [f"[{value}, {value}]" for value in out_of(limits.entry, whole)]
        return entries + (["[]"] if limits.low else [])
    return []


def refused(file, field: Field, value: str) -> str:
    """The error of an entry's value: in a list of sections, the entry has it alone."""
    override = f"{field.path}={value}"
    if "[0]." in field.path:
        section, name = field.path.split("[0].")
        override = f"{section}=[{{{name}: {value}}}]"
    with pytest.raises(UserError) as caught:
        load_config(file, [*field.section, override])
    return str(caught.value)


@every_field
def test_what_is_out_of_range_is_refused_by_name(file, field):
    entry = get_args(field.kind)[0] if get_origin(field.kind) is list else field.kind
    for value in out_of(field.limits, entry is int):
        assert f"{file}: {field.path}" in refused(file, field, value), value


@every_field
def test_another_type_is_refused_by_name(file, field):
    wrong = ["{a: 1}", "2026-11-30", "12:30"] if field.kind is not str else ["{a: 1}", "3", "true", "1.5"]
    if field.kind in (int, float):
        wrong += ["true", "yes", "''", "[1]", "x", "0x", "1 2"]
    wrong += ["1.5", "1e-4", "1.0000001e5"] if field.kind is int else []
    wrong += ["1", "0", "'true'"] if field.kind is bool else []
    for value in wrong:
        assert f"{file}: {field.path}" in refused(file, field, value), value


def test_the_schema_lists_a_range_for_whatever_is_no_switch_nor_choice():
    listed = [key for key in all_keys() if key.range is None]
    assert listed and all(key.type == "bool" or "|" in key.type or key.path.endswith(".kind") for key in listed)


@pytest.mark.parametrize(
    ("limits", "inside", "outside"),
    [
        (Range(1, 3), [1, 3], [0, 4, math.nan]),
        (Range(0, 1, above=True), [1e-9, 1], [0, -1e-9, 1.0001]),
        (Range(0, 1, below=True), [0, 0.9999], [1, -1e-9]),
        (Range(0), [0, 1e300], [-1e-300, math.inf, math.nan]),
        (Text(), ["a", " b"], ["", " ", "a\tb", "\x7f"]),
        (Length(1, 2, Range(0)), [[0], [9, 9]], [[], [1, 2, 3]]),
    ],
    ids=str,
)
def test_each_side_of_an_edge(limits, inside, outside):
    assert [limits.fault(value) for value in inside] == [None] * len(inside)
    assert all(limits.fault(value) for value in outside)


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (Range(1, 1024), "at least 1 and at most 1,024"),
        (Range(0, above=True), "above 0, finite"),
        (Range(0, 1, below=True), "at least 0 and below 1"),
        (Length(2, 2, Range(0, 1)), "2 entries, each at least 0 and at most 1"),
    ],
)
def test_a_range_in_words(limits, words):
    assert str(limits) == words
