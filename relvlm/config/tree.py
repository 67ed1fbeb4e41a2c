"""From YAML to dataclasses: base files, overrides, types, ranges; every error names file and field.

Nothing here knows what is configured.
"""

from __future__ import annotations

import dataclasses
import difflib
import logging
import types
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import yaml

from relvlm.config import scalars, yaml_text
from relvlm.config.ranges import Length, limits_of
from relvlm.errors import UserError

Section = TypeVar("Section")
FAULTY = object()  # in the place of a value that is of no use
log = logging.getLogger(__name__)


class Faults:
    """What is wrong with a tree, field by field, until it is raised as one error."""

    def __init__(self, origin: str) -> None:
        self.origin, self.lines = origin, list[str]()
        self.fields: set[str] = set()

    def add(self, where: str, message: str) -> Any:
        """Remember a fault of a field; returns FAULTY."""
        self.fields.add(where)
        self.lines.append(f"{self.origin}: {where or 'top level'}: {message}")
        return FAULTY

    def within(self, where: str) -> bool:
        """Whether the field, one above it or one below it is faulty."""
        return any(_below(where, field) or _below(field, where) for field in self.fields)

    def check(self) -> None:
        """Raise UserError with a line for each fault, if there is one."""
        if self.lines:
            raise UserError("\n".join(self.lines))


def _below(where: str, section: str) -> bool:
    return where == section or where.startswith((f"{section}.", f"{section}[")) or not section


def read_tree(path: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The tree of a YAML file, laid over that of its `base`; `above` are the files that led here."""
    if path.resolve() in above:
        raise UserError(f"{path}: base: leads back to this file")
    if not path.is_file():
        raise UserError(f"{path}: no such config file (ready ones lie in configs/)")
    tree = _read_yaml(path)
    if not isinstance(tree, dict):
        raise UserError(f"{path}: expected sections, found {tree!r}")
    base = tree.pop("base", "")
    if not isinstance(base, str):
        raise UserError(f"{path}: base: expected a file name, found {base!r}")
    if not base:
        return tree
    return _merge(read_tree(path.parent / scalars.expand_at(base, path, "base"), (*above, path.resolve())), tree)


def _read_yaml(path: Path) -> Any:
    try:
        found = yaml_text.read(path.read_bytes())
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{path}: not YAML: {error}") from error
    except OSError as error:
        raise UserError(f"{path}: not readable: {error.strerror}") from error
    return {} if found is None else found


def _merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    both = {k: _merge(below[k], v) for k, v in above.items() if isinstance(v, dict) and isinstance(below.get(k), dict)}
    return below | above | both


def apply_overrides(tree: dict[str, Any], overrides: list[str]) -> None:
    """Set each `dotted.key=value` in the tree; the last of several for a key has effect, and a warning says so."""
    for place, override in enumerate(overrides):
        key = override.partition("=")[0]
        later = [other for other in overrides[place + 1 :] if _below(key, other.partition("=")[0])]
        if later:
            log.warning("%s is overruled by %s, which comes later", override, later[-1])
        apply_override(tree, override)


def apply_override(tree: dict[str, Any], override: str) -> None:
    """Set one `dotted.key=value` in the tree; the value is read as YAML."""
    key, separator, text = override.partition("=")
    if not separator or not all(key.split(".")):
        raise UserError(f"{override}: an override reads dotted.key=value")
    node = tree
    *parents, last = key.split(".")
    for place, parent in enumerate(parents, 1):
        node = node.setdefault(parent, {})
        if not isinstance(node, dict):
            whole = ".".join(parents[:place])
            raise UserError(f"{override}: {parent} is a value, not a section (set it as a whole: {whole}=...)")
    try:
        node[last] = yaml_text.read(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise UserError(f"{override}: not a YAML value: {error}") from error


def build(kind: type[Section], tree: Any, origin: str, where: str) -> Section:
    """The dataclass `kind` of a tree; `origin` and the dotted path `where` name the fields in errors.

    A `kind` may say with `of_word` what section a single word is short for. Raises UserError with a line for each
    field that is unknown, missing, of another type or out of its range.
    """
    faults = Faults(origin)
    section = read_section(kind, tree, where, faults)
    faults.check()
    return cast("Section", section)


def read_section(kind: type[Section], tree: Any, where: str, faults: Faults) -> Section | Any:
    """The dataclass, its faulty fields at their defaults; FAULTY where one of these has none."""
    of_word = getattr(kind, "of_word", None)
    if of_word and isinstance(tree, str):
        tree = of_word(tree) or tree
    if not isinstance(tree, dict):
        return faults.add(where, f"expected a section, found {tree!r}")
    hints = get_type_hints(kind, include_extras=True)
    for key in tree:
        if key not in hints:
            near = difflib.get_close_matches(str(key), hints, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(hints)}"
            faults.add(_join(where, key), f"unknown key ({hint})")
    values = {k: _value(hints[k], v, _join(where, k), faults) for k, v in tree.items() if k in hints}
    for name in required(kind):
        if name not in tree:
            values[name] = faults.add(_join(where, name), "missing")
    if any(values[name] is FAULTY for name in required(kind)):
        return FAULTY
    return kind(**{name: value for name, value in values.items() if value is not FAULTY})


def required(kind: Any) -> list[str]:
    """Fields without a default."""
    none = dataclasses.MISSING
    return [f.name for f in dataclasses.fields(kind) if f.default is none and f.default_factory is none]


def tags(kind: Any) -> tuple[str, ...]:
    """The values of `kind` that choose this dataclass among those of a union."""
    return get_args(get_type_hints(kind)["kind"])


def _value(hint: Any, value: Any, where: str, faults: Faults) -> Any:
    kind, *marks = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    limits = limits_of(tuple(marks))
    if dataclasses.is_dataclass(kind):
        return read_section(cast("type[Any]", kind), value, where, faults)
    base = get_origin(kind)
    if base is list:
        return _list(kind, value, limits, where, faults)
    if base is Literal:
        return _one_of(get_args(kind), value, where, faults)
    if base in (Union, types.UnionType):
        return _union(get_args(kind), marks, value, where, faults)
    try:
        return scalars.read(kind, limits, value)
    except UserError as error:
        return faults.add(where, str(error))


def _list(kind: Any, value: Any, limits: Any, where: str, faults: Faults) -> Any:
    if not isinstance(value, list):
        return faults.add(where, f"expected a list, found {value!r}")
    fault = limits.fault(value) if isinstance(limits, Length) else None
    if fault:
        return faults.add(where, fault)
    (inner,) = get_args(kind)
    entry = Annotated[inner, limits.entry] if isinstance(limits, Length) else inner
    entries = [_value(entry, v, f"{where}[{i}]", faults) for i, v in enumerate(value)]
    return FAULTY if FAULTY in entries else entries


def _union(kinds: tuple[Any, ...], marks: list[Any], value: Any, where: str, faults: Faults) -> Any:
    """`X | None`, or one of several dataclasses, by the value's `kind`; the first where it says none."""
    if kinds[-1] is types.NoneType:
        hint = Annotated[(kinds[0], *marks)] if marks else kinds[0]
        return None if value is None else _value(hint, value, where, faults)
    if not isinstance(value, dict) or "kind" not in value:
        return read_section(kinds[0], value, where, faults)
    by_tag = {tag: kind for kind in kinds for tag in tags(kind)}
    tag = _one_of(tuple(by_tag), value["kind"], f"{where}.kind", faults)
    return FAULTY if tag is FAULTY else read_section(by_tag[tag], value, where, faults)


def _one_of(known: tuple[str, ...], value: Any, where: str, faults: Faults) -> Any:
    if not isinstance(value, str) or value not in known:
        return faults.add(where, f"{value!r} is none of {', '.join(map(repr, known))}")
    return value


def _join(where: str, key: Any) -> str:
    return f"{where}.{key}" if where else str(key)
