"""Every key that a config file may hold, with its type, its default and a word of explanation."""

from __future__ import annotations

import dataclasses
import inspect
import json
import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from relvlm.config.schema import Config
from relvlm.config.tree import tags


@dataclass(frozen=True)
class Key:
    """A leaf of the config: `path` dotted, `default` as YAML writes it, None where the key must be given."""

    path: str
    type: str
    default: str | None
    meaning: str


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
    kind, meaning = get_args(hint)[:2]
    return Key(path, _type(kind), _default(field), meaning)


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


def listing() -> str:
    """All sections as text, a line for each key."""
    lines = []
    for section in sections():
        lines += ["", f"{section.path or 'top level'}: {section.meaning}"]
        for key in section.keys:
            default = "(required)" if key.default is None else f"= {key.default}"
            lines.append(f"  {key.path}: {key.type} {default}\n      {key.meaning}")
    return "\n".join(lines[1:])
