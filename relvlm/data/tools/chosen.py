"""Which samples of a shard set a sheet shows, spread over the set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import gcd
from typing import NamedTuple

from relvlm.data.shards.schema import Relation
from relvlm.data.shards.store import DataFault, Record, ShardSet
from relvlm.data.tools import inspect
from relvlm.data.tools.lint import inspect_record


@dataclass(frozen=True)
class Chosen:
    """Which samples a sheet shows; an empty tuple leaves nothing out."""

    labels: tuple[str, ...] = ()  # that an entity has
    predicates: tuple[str, ...] = ()  # that a relation has: the others are not shown
    keys: tuple[str, ...] = ()
    faults: bool = False  # samples alone in which `relvlm data lint` finds something, as far as they can be shown

    @property
    def all(self) -> bool:
        """Whether nothing is left out."""
        return self == Chosen()

    def takes(self, record: Record) -> bool:
        """Whether the sample has one of each that is asked for."""
        sample = record.sample
        return (
            (not self.keys or record.key in self.keys)
            and (not self.labels or any(e.label in self.labels for e in sample.entities))
            and (not self.predicates or any(r.predicate in self.predicates for r in sample.relations))
        )


ALL = Chosen()


class Card(NamedTuple):
    """A sample to show, and what is wrong with it; without a photo where that cannot be decoded."""

    record: Record
    relations: Sequence[Relation]
    faults: Sequence[str] = ()
    photo: bool = True


def find_cards(shards: ShardSet, count: int, chosen: Chosen) -> tuple[list[Card], list[str]]:
    """At most `count` cards in the set's order, and the faults of samples that cannot be shown though they are meant.

    If all samples are meant, `count` of them are looked at; else as many as it takes.
    """
    cards: list[tuple[int, Card]] = []
    faults: list[str] = []
    even = (number * len(shards) // count for number in range(count))
    for index in even if chosen.all else spread(len(shards)):
        if len(cards) == count:
            break
        try:
            card = _card(shards, index, chosen)
        except DataFault as fault:
            faults += [str(fault)] if chosen.all or chosen.faults else []
            continue
        if card:
            cards.append((index, card))
    return [card for _, card in sorted(cards, key=lambda found: found[0])], faults


def _card(shards: ShardSet, index: int, chosen: Chosen) -> Card | None:
    """None for a sample that is not meant; raises DataFault for one that cannot be read, or not be shown."""
    record = shards.read(index)
    if not chosen.takes(record):
        return None
    relations = [r for r in record.sample.relations if not chosen.predicates or r.predicate in chosen.predicates]
    if not chosen.faults:
        inspect.picture(record)
        return Card(record, relations)
    found = [fault.line for fault in inspect_record(shards, index).faults]
    return Card(record, relations, found, _can_be_seen(record)) if found else None


def _can_be_seen(record: Record) -> bool:
    try:
        inspect.picture(record)
    except DataFault:
        return False
    return True


def spread(count: int) -> Iterator[int]:
    """Every number below `count` once, early ones far apart."""
    step = max(1, round(count * 0.618))
    while gcd(step, count) > 1:
        step += 1
    return (number * step % count for number in range(count))
