"""From YAML to dataclasses: base files, overrides, types; every error names file and field.

Nothing here knows what is configured.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import types
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import yaml

from relvlm.errors import UserError

Section = TypeVar("Section")


def read_tree(path: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The tree of a YAML file, laid over that of its `base`; `above` are the files that led here."""
    if path.resolve() in above:
        raise UserError(f"{path}: base: leads back to this file")
    if not path.is_file():
        raise UserError(f"{path}: no such config file (ready ones lie in configs/)")
    try:
        tree = yaml.safe_load(path.read_text()) or {}
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not YAML: {error}") from error
    if not isinstance(tree, dict):
        raise UserError(f"{path}: expected sections, found {tree!r}")
    base = tree.pop("base", "")
    if not isinstance(base, str):
        raise UserError(f"{path}: base: expected a file name, found {base!r}")
    return _merge(read_tree(path.parent / base, (*above, path.resolve())), tree) if base else tree


def _merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    both = {k: _merge(below[k], v) for k, v in above.items() if isinstance(v, dict) and isinstance(below.get(k), dict)}
    return below | above | both


def apply_override(tree: dict[str, Any], override: str) -> None:
    """Set one `dotted.key=value` in the tree; the value is read as YAML."""
    key, separator, text = override.partition("=")
    if not separator:
        raise UserError(f"{override}: an override reads dotted.key=value")
    node = tree
    *parents, last = key.split(".")
    for parent in parents:
        node = node.setdefault(parent, {})
        if not isinstance(node, dict):
            raise UserError(f"{override}: {parent} is a value, not a section")
    try:
        node[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"{override}: not a YAML value: {error}") from error


def build(kind: type[Section], tree: Any, origin: str, where: str) -> Section:
    """The dataclass `kind` of a tree; `origin` and the dotted path `where` name the field in errors.

    A `kind` may say with `of_word` what section a single word is short for.
    """
    of_word = getattr(kind, "of_word", None)
    if of_word and isinstance(tree, str):
        tree = of_word(tree) or tree
    if not isinstance(tree, dict):
        raise UserError(f"{origin}: {where or 'top level'}: expected a section, found {tree!r}")
    hints = get_type_hints(kind)
    for key in tree:
        if key not in hints:
            near = difflib.get_close_matches(str(key), hints, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(hints)}"
            raise UserError(f"{origin}: {_join(where, key)}: unknown key ({hint})")
    for name in required(kind):
        if name not in tree:
            raise UserError(f"{origin}: {_join(where, name)}: missing")
    return kind(**{k: _value(hints[k], v, origin, _join(where, k)) for k, v in tree.items()})


def required(kind: Any) -> list[str]:
    """The fields of a dataclass that have no default."""
    none = dataclasses.MISSING
    return [f.name for f in dataclasses.fields(kind) if f.default is none and f.default_factory is none]


def tags(kind: Any) -> tuple[str, ...]:
    """The values of `kind` that choose this dataclass among those of a union."""
    return get_args(get_type_hints(kind)["kind"])


def _value(kind: Any, value: Any, origin: str, where: str) -> Any:
    if dataclasses.is_dataclass(kind):
        return build(cast("type[Any]", kind), value, origin, where)
    base = get_origin(kind)
    if base is list:
        if not isinstance(value, list):
            raise UserError(f"{origin}: {where}: expected a list, found {value!r}")
        (inner,) = get_args(kind)
        return [_value(inner, v, origin, f"{where}[{i}]") for i, v in enumerate(value)]
    if base is Literal:
        return _one_of(get_args(kind), value, origin, where)
    if base in (Union, types.UnionType):
        return _union(get_args(kind), value, origin, where)
    return _scalar(kind, value, origin, where)


def _union(kinds: tuple[Any, ...], value: Any, origin: str, where: str) -> Any:
    """`X | None`, or one of several dataclasses, by the value's `kind`; the first where it says none."""
    if kinds[-1] is types.NoneType:
        return None if value is None else _value(kinds[0], value, origin, where)
    if not isinstance(value, dict) or "kind" not in value:
        return build(kinds[0], value, origin, where)
    by_tag = {tag: kind for kind in kinds for tag in tags(kind)}
    return build(by_tag[_one_of(tuple(by_tag), value["kind"], origin, f"{where}.kind")], value, origin, where)


def _one_of(known: tuple[str, ...], value: Any, origin: str, where: str) -> Any:
    if value not in known:
        raise UserError(f"{origin}: {where}: {value!r} is none of {', '.join(map(repr, known))}")
    return value


def _scalar(kind: type, value: Any, origin: str, where: str) -> Any:
    if kind is float and isinstance(value, str):  # YAML 1.1 reads 1e-4 as a string
        with contextlib.suppress(ValueError):
            value = float(value)
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        raise UserError(f"{origin}: {where}: expected {kind.__name__}, found {value!r}")
    return value


def _join(where: str, key: Any) -> str:
    return f"{where}.{key}" if where else str(key)
