"""Strict readers of the fields of a raw record: each gives the type it says or raises RecordFault naming the field."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable
from typing import Any

from relvlm.data.image_ids import unpadded
from relvlm.data.json_keys import RepeatedKeys
from relvlm.data.shards.schema import Relation
from relvlm.data.sources.faults import Faults, LeftOut, RecordFault, shown

Record = dict[str, Any]
MAX_SIDE = 2**31 - 1  # pixels; no PNG is longer
LONGEST_ID = 64
_KEY = re.compile(rf"[A-Za-z0-9_-]{{1,{LONGEST_ID}}}")


def mapping(value: Any, name: str = "record") -> Record:
    """A JSON object."""
    if type(value) is dict:
        return value
    if isinstance(value, RepeatedKeys):
        raise RecordFault(f"{name}: a key stands twice", ", ".join(sorted(value.repeated)))
    raise RecordFault(f"{name}: no JSON object", shown(value))


def required(record: Record, name: str) -> Any:
    """The field's value, whatever its type."""
    try:
        return record[name]
    except KeyError:
        raise RecordFault(f"{name}: missing") from None


def text(record: Record, name: str) -> str:
    """A string as it stands."""
    return as_text(required(record, name), name)


def as_text(value: Any, name: str) -> str:
    """`value`, which must be a string that UTF-8 can hold."""
    if type(value) is not str:
        raise RecordFault(f"{name}: no text", shown(value))
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise RecordFault(f"{name}: half of a surrogate pair", shown(value)) from None
    return value


def optional_list(record: Record, name: str) -> list[Any]:
    """A list; empty where the field is absent or null."""
    value = record.get(name)
    if value is None:
        return []
    if type(value) is not list:
        raise RecordFault(f"{name}: no list", shown(value))
    return value


def items(faults: Faults, kind: str, record: Record, name: str, place: str) -> Iterable[tuple[int, Any]]:
    """The numbered items of an optional list; one fault of `kind` where the field is no list."""
    try:
        return enumerate(optional_list(record, name))
    except RecordFault as fault:
        faults.read[kind] += 1
        faults.add(kind, place, fault)
        return ()


def as_number(value: Any, name: str) -> float:
    """`value`, which must be a finite number."""
    if type(value) is not float and type(value) is not int:
        raise RecordFault(f"{name}: no number", shown(value))
    if not -1e9 < value < 1e9:  # nor is NaN
        raise RecordFault(f"{name}: out of all bounds", shown(value))
    return float(value)


def side(record: Record, name: str) -> int:
    """A number of pixels above 0; 640.0 is 640, as it is in JSON."""
    value = required(record, name)
    if type(value) is float and math.isfinite(value) and value.is_integer():
        value = int(value)
    if type(value) is not int or not 0 < value <= MAX_SIDE:
        raise RecordFault(f"{name}: no number of pixels", shown(value))
    return value


def identifier(record: Record, name: str) -> str:
    """An id, the same string for 7, 7.0, "7" and "007"."""
    return as_identifier(required(record, name), name)


def as_identifier(value: Any, name: str) -> str:
    """`value` as an id of letters, digits, - and _ (it becomes a part of a file's name)."""
    if type(value) is int:
        return str(value) if abs(value) < 10**18 else _no_id(value, name)
    if type(value) is float and math.isfinite(value) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    if type(value) is str:
        if value.isdigit() and value.isascii() and len(value) <= LONGEST_ID:  # nearly all, and quick
            return value if value[0] != "0" else unpadded(value)
        if _KEY.fullmatch(value):
            return value
    return _no_id(value, name)


def _no_id(value: Any, name: str) -> str:
    raise RecordFault(f"{name}: no id", shown(value))


def id_order(identifier: str) -> tuple[bool, int, str]:
    """What ids sort by: numbers first, by their value."""
    number = identifier.removeprefix("-").isdigit()
    return not number, int(identifier) if number else 0, identifier


def relation_of(subject: str, predicate: str, target: str, known: Collection[str]) -> Relation:
    """The relation, of entities that are `known`; raises LeftOut for one that says nothing, or of what is not there."""
    if not predicate:
        raise LeftOut("no predicate")
    if subject == target:
        raise LeftOut("of an object with itself")
    if subject not in known or target not in known:
        raise LeftOut("its object is left out")
    return Relation(subject, predicate, target)
