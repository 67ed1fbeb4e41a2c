"""Sample, schema version 1: one record of a shard, `KEY.jpg` + `KEY.json`.

Boxes are (x0, y0, x1, y1) in pixels of the stored image, half-open, clipped to it. Every field but `image_id`,
`width` and `height` may be empty. Nothing is converted: a number is no text, and a text no list of texts.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, field, fields
from difflib import get_close_matches
from typing import Any, Literal, TypeVar, get_args

SCHEMA_VERSION = 1
MAX_SIDE = 2**31 - 1  # pixels; no PNG is longer
Box = tuple[float, float, float, float]
Provenance = Literal["", "human", "boxes", "parser", "model"]  # "": the source does not say
PROVENANCES: tuple[Provenance, ...] = get_args(Provenance)


class SchemaError(ValueError):
    """A record that is not a valid sample; the message names the field."""


@dataclass(frozen=True)
class Entity:
    """A labelled box; `attributes` are adjectives that may be put before the label."""

    id: str
    label: str
    box: Box
    attributes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Relation:
    """`predicate` holds from entity `subject` to entity `object` (both entity ids).

    `provenance`: who or what says so. The same relation from somewhere else is the same relation.
    """

    subject: str
    predicate: str
    object: str
    provenance: Provenance = field(default="", compare=False)


@dataclass(frozen=True)
class Sample:
    """An image's annotation; the pixels travel beside it as encoded bytes."""

    image_id: str
    width: int
    height: int
    source: str = ""
    captions: tuple[str, ...] = ()
    entities: tuple[Entity, ...] = ()
    relations: tuple[Relation, ...] = ()
    schema: int = field(default=SCHEMA_VERSION)

    def to_json(self) -> dict[str, Any]:
        """The record as plain JSON types; a relation of unknown provenance says nothing of it."""
        record = asdict(self)
        for relation in record["relations"]:
            if not relation["provenance"]:
                del relation["provenance"]
        return record

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Sample:
        """Parse and check one record; raises SchemaError naming the first field at fault."""
        _check_fields(record, SAMPLE_FIELDS)
        schema = record.get("schema")
        if type(schema) is not int or schema != SCHEMA_VERSION:
            raise SchemaError(f"schema: {schema!r}, this reader knows {SCHEMA_VERSION}")
        size = width, height = _side(record, "width"), _side(record, "height")
        entities = _each(record, "entities", _entity, size)
        ids = {e.id for e in entities}
        if len(ids) != len(entities):
            raise SchemaError("entities: ids are not unique")
        return cls(
            _text(record, "image_id"),
            width,
            height,
            _text(record, "source") if "source" in record else "",
            _texts(record, "captions"),
            entities,
            _each(record, "relations", _relation, ids),
        )


SAMPLE_FIELDS = frozenset(f.name for f in fields(Sample))
ENTITY_FIELDS = frozenset(f.name for f in fields(Entity))
RELATION_FIELDS = frozenset(f.name for f in fields(Relation))
C = TypeVar("C")
T = TypeVar("T")

# All of this runs for every record that a training reads, so places are put into words only where a fault is.


def _each(record: dict[str, Any], name: str, read: Callable[[Any, C], T], context: C) -> tuple[T, ...]:
    """`read(item, context)` of each item of the list `name`."""
    found: list[T] = []
    items = _listed(record, name)
    try:
        for item in items:
            found.append(read(item, context))
    except SchemaError as error:
        raise SchemaError(f"{name}[{len(found)}].{error}") from error
    return tuple(found)


def _entity(record: Any, size: tuple[int, int]) -> Entity:
    _check_fields(record, ENTITY_FIELDS)
    return Entity(_text(record, "id"), _text(record, "label"), _box(record, size), _texts(record, "attributes"))


def _relation(record: Any, ids: Collection[str]) -> Relation:
    if type(record) is not dict or len(record) != 3:  # else each of the three is asked for below
        _check_fields(record, RELATION_FIELDS)
    subject, target = _text(record, "subject"), _text(record, "object")
    if subject not in ids or target not in ids:
        end, name = ("subject", subject) if subject not in ids else ("object", target)
        raise SchemaError(f"{end}: {name!r} is the id of no entity")
    return Relation(subject, _text(record, "predicate"), target, _provenance(record) if len(record) > 3 else "")


def _provenance(record: dict[str, Any]) -> Provenance:
    value: Any = record.get("provenance", "human")
    if type(value) is not str or not value or value not in PROVENANCES:
        raise SchemaError(f"provenance: {_shown(value)} is none of {', '.join(filter(None, PROVENANCES))}")
    return value  # type: ignore[return-value]


def _check_fields(record: Any, known: frozenset[str]) -> None:
    if type(record) is not dict:
        raise SchemaError(f"record: {_shown(record)} is no JSON object")
    if not known.issuperset(record):
        name = next(name for name in record if name not in known)
        near = get_close_matches(str(name), sorted(known), 1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(known))}"
        raise SchemaError(f"{name}: unknown field ({hint})")


def _text(record: dict[str, Any], name: str) -> str:
    value = record.get(name)
    if type(value) is not str:
        raise SchemaError(f"{name}: {_shown(value)} is no text" if name in record else f"{name}: missing")
    if not value.isascii():
        _check_encodable(value, name)
    return value


def _listed(record: dict[str, Any], name: str) -> Sequence[Any]:
    values = record.get(name, ())
    if type(values) is not list and type(values) is not tuple:
        raise SchemaError(f"{name}: {_shown(values)} is no list")
    return values


def _texts(record: dict[str, Any], name: str) -> tuple[str, ...]:
    values = _listed(record, name)
    if not values:
        return ()
    for value in values:
        if type(value) is not str:
            raise SchemaError(f"{name}[{values.index(value)}]: {_shown(value)} is no text")
        if not value.isascii():
            _check_encodable(value, name)
    return tuple(values)


def _check_encodable(text: str, name: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise SchemaError(f"{name}: {text!r} holds half of a surrogate pair") from error


def _side(record: dict[str, Any], name: str) -> int:
    value = record.get(name)
    if type(value) is not int or not 0 < value <= MAX_SIDE:
        problem = f"{_shown(value)} is no number of pixels (a whole number above 0)" if name in record else "missing"
        raise SchemaError(f"{name}: {problem}")
    return value


def _box(record: dict[str, Any], size: tuple[int, int]) -> Box:
    values = record.get("box")
    if type(values) not in (list, tuple) or len(values) != 4:  # type: ignore[arg-type]
        raise SchemaError(f"box: {_shown(values)} are not four numbers" if "box" in record else "box: missing")
    x0, y0, x1, y1 = values  # type: ignore[misc]
    floats = type(x0) is float and type(y0) is float and type(x1) is float and type(y1) is float
    if not floats and any(type(v) not in (float, int) for v in values):  # type: ignore[union-attr]
        raise SchemaError(f"box: {_shown(values)} are not four numbers")
    if not (0 <= x0 < x1 <= size[0] and 0 <= y0 < y1 <= size[1]):  # NaN is not, either
        raise SchemaError(f"box: {_shown(values)} is empty or not inside {size[0]}x{size[1]} (x0, y0, x1, y1)")
    return float(x0), float(y0), float(x1), float(y1)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
