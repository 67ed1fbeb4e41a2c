"""Every key that a config file may hold: type, default, range, what a resumed run may do with it, what it means."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import json
import re
import types
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from relvlm.config.ranges import ByContent, Resume, Text, limits_of, resume_rule
from relvlm.config.schema import Config
from relvlm.config.tree import tags


@dataclass(frozen=True)
class Key:
    """A leaf of the config: `path` dotted, `default` as YAML writes it, None where the key must be given.

    `range` is None where the type says it all; `by_content` marks a path (`is_path`) whose content a
    resumed run compares.
    """

    path: str
    type: str
    default: str | None
    meaning: str
    range: str | None = None
    resume: Resume = "accept"
    by_content: bool = False
    is_path: bool = False


@dataclass(frozen=True)
class Section:
    """The keys of one dataclass; `path` is empty for the top level, and ends in [] for the entries of a list."""

    path: str
    meaning: str
    keys: list[Key]


def sections(kind: Any = Config, path: str = "", tag: str = "") -> Iterator[Section]:
    """The section of a dataclass and then those below it; `tag` says when it is the one of several."""
    hints, keys, below = get_type_hints(kind, include_extras=True), [], []
    for field in dataclasses.fields(kind):
        where, hint = f"{path}.{field.name}" if path else field.name, hints[field.name]
        nested = list(_nested(hint, where))
        below += nested
        if not nested:
            keys.append(_key(where, hint, field))
    yield Section(path, tag + inspect.cleandoc(kind.__doc__).split("\n")[0], keys)
    for inner, where, choice in below:
        yield from sections(inner, where, choice)


def _nested(hint: Any, where: str) -> Iterator[tuple[Any, str, str]]:
    """The dataclasses that a field holds, each with its path and what chooses it."""
    if dataclasses.is_dataclass(hint):
        yield hint, where, ""
    elif get_origin(hint) is list and dataclasses.is_dataclass(get_args(hint)[0]):
        yield get_args(hint)[0], f"{where}[]", ""
    elif get_origin(hint) is types.UnionType:
        for kind in get_args(hint):
            yield kind, where, f"(kind: {' or '.join(tags(kind))}) "


def _key(path: str, hint: Any, field: dataclasses.Field[Any]) -> Key:
    if get_origin(hint) is not Annotated:
        raise TypeError(f"{path}: without a word of explanation (Annotated)")
    kind, meaning, *marks = get_args(hint)
    limits = limits_of(tuple(marks))
    if limits is None and not _limits_itself(kind):
        raise TypeError(f"{path}: without a range (relvlm/config/ranges.py)")
    shown = None if limits is None else str(limits)
    by_content = any(isinstance(mark, ByContent) for mark in marks)
    is_path = isinstance(limits, Text) and limits.path
    return Key(path, _type(kind), _default(field), meaning, shown, resume_rule(tuple(marks)), by_content, is_path)


def _limits_itself(kind: Any) -> bool:
    return kind is bool or get_origin(kind) is Literal


def _type(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return " | ".join(get_args(kind))
    if get_origin(kind) in (Union, types.UnionType):
        return " | ".join("null" if k is types.NoneType else _type(k) for k in get_args(kind))
    return f"list of {_type(get_args(kind)[0])}" if get_origin(kind) is list else kind.__name__


def _default(field: dataclasses.Field[Any]) -> str | None:
    value = field.default
    if field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    if value is dataclasses.MISSING:
        return None
    return value if isinstance(value, str) else json.dumps(value)


@cache
def all_keys() -> tuple[Key, ...]:
    """Those of every section; a key of several kinds of a section is there for each."""
    return tuple(key for section in sections() for key in section.keys)


def key_of(path: str) -> Key | None:
    """The key that a dotted path with numbered entries (`data.captions[0].path`) is a value of."""
    plain = re.sub(r"\[\d+\]", "[]", path)
    return next((key for key in all_keys() if key.path == plain), None)


def leaves(tree: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values of a config's tree; sections in a list are numbered, other lists are values."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from leaves(value, f"{where}.{key}" if where else key)
    elif isinstance(tree, list) and any(isinstance(entry, dict) for entry in tree):
        for place, entry in enumerate(tree):
            yield from leaves(entry, f"{where}[{place}]")
    elif tree != [] or key_of(where):
        yield where, tree


def is_key(path: str) -> bool:
    """Whether a dotted path names a key or a section."""
    plain = re.sub(r"\[\d+\]", "[]", path)
    return any(re.match(rf"{re.escape(plain)}(?:$|[.\[])", key.path) for key in all_keys())


def near_keys(path: str) -> str:
    """A hint for a path that is none, empty where nothing is like it."""
    near = difflib.get_close_matches(path, {key.path for key in all_keys()}, n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


RESUME_WORDS = {
    "accept": "if resume.accept names it",
    "free": "may change",
    "never": "must stay",
}


def listing() -> str:
    """All sections as text, a few lines for each key."""
    lines = []
    for section in sections():
        lines += ["", f"{section.path or 'top level'}: {section.meaning}"]
        for key in section.keys:
            default = "(required)" if key.default is None else f"= {key.default}"
            lines.append(f"  {key.path}: {key.type} {default}\n      {key.meaning}")
            limits = f"range: {key.range}; " if key.range else ""
            lines.append(f"      {limits}at a resume: {RESUME_WORDS[key.resume]}")
    return "\n".join(lines[1:])


def json_listing() -> str:
    """The same for programs: a list of keys."""
    return json.dumps([dataclasses.asdict(key) for key in all_keys()], indent=1)
