"""Sample, schema version 1: one record of a shard, `KEY.jpg` + `KEY.json`.

Boxes are (x0, y0, x1, y1) in pixels of the stored image, half-open, clipped to it. Every field but `image_id`,
`width` and `height` may be empty.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

SCHEMA_VERSION = 1
Box = tuple[float, float, float, float]


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
    """`predicate` holds from entity `subject` to entity `object` (both entity ids)."""

    subject: str
    predicate: str
    object: str


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
        """The record as plain JSON types."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Sample:
        """Parse and check one record; raises SchemaError naming the first field at fault."""
        if record.get("schema") != SCHEMA_VERSION:
            raise SchemaError(f"schema: {record.get('schema')!r}, this reader knows {SCHEMA_VERSION}")
        try:
            sample = cls(
                image_id=str(record["image_id"]),
                width=int(record["width"]),
                height=int(record["height"]),
                source=str(record.get("source", "")),
                captions=tuple(str(c) for c in record.get("captions", ())),
                entities=tuple(_entity(e) for e in record.get("entities", ())),
                relations=tuple(Relation(**r) for r in record.get("relations", ())),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise SchemaError(f"{type(error).__name__}: {error}") from error
        _check(sample)
        return sample


def _entity(record: dict[str, Any]) -> Entity:
    x0, y0, x1, y1 = (float(v) for v in record["box"])
    return Entity(str(record["id"]), str(record["label"]), (x0, y0, x1, y1), tuple(record.get("attributes", ())))


def _check(sample: Sample) -> None:
    if sample.width <= 0 or sample.height <= 0:
        raise SchemaError(f"width, height: {sample.width}x{sample.height} is no image size")
    ids = [e.id for e in sample.entities]
    if len(set(ids)) != len(ids):
        raise SchemaError("entities: ids are not unique")
    for entity in sample.entities:
        x0, y0, x1, y1 = entity.box
        if not (0 <= x0 < x1 <= sample.width and 0 <= y0 < y1 <= sample.height):
            raise SchemaError(f"entities[{entity.id}].box: {entity.box} is not inside {sample.width}x{sample.height}")
    for relation in sample.relations:
        if relation.subject not in ids or relation.object not in ids:
            raise SchemaError(f"relations: {relation} names an unknown entity")
