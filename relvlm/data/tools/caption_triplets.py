"""Triplets that a caption states word for word: `label predicate label`, each label that of exactly one entity.

No grammar is known, so what a grammar would be needed for is left out: a subject behind a preposition ("a man with a
hat riding a horse"), a label that goes on ("on a table cloth"), a phrase that fits two entities.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from relvlm.data.batches.regions import read_relations
from relvlm.data.shards.schema import Entity, Relation, Sample
from relvlm.errors import UserError

Words = tuple[str, ...]
_WORD = re.compile(r"[^\W_]+(?:['-][^\W_]+)*|[.,;:!?()]")
_OPENING = re.compile(
    r"^\W*(?:(?:look at|here is|there (?:is|are))\s+|"
    r"(?:an? |the )?(?:close[ -]?up |black and white )?(?:picture|photo|photograph|image|view|shot|drawing) of\s+)"
)
_ARTICLES = frozenset(("a", "an", "the", "his", "her", "its", "their", "this", "that", "one"))
_COPULAS = frozenset(("is", "are", "was", "were"))
# What may stand before a subject, and what may follow an object without being a part of its name
_BEFORE = frozenset(("", "and", "while", *".,;:!?()"))
_AFTER = _BEFORE | {"with", "in", "on", "at", "by", "of", "near", "under", "over", "next", "behind", "beside"}
_AFTER |= {"while", "that", "which", "who", *_COPULAS}


class Phrase(NamedTuple):
    """Words [start, end) that name one entity, its article and attributes among them."""

    start: int
    end: int
    entity: Entity


class CaptionParser:
    """Reads captions for a list of predicates; longer ones come before their beginnings ("on top of" before "on")."""

    def __init__(self, predicates: Sequence[str]) -> None:
        self.predicates = tuple(predicates)
        self._words = {tuple(predicate.lower().split()): predicate for predicate in predicates}
        self._longest = max(map(len, self._words))
        self._after = _AFTER | {words[0] for words in self._words}

    def triplets(self, sample: Sample) -> list[Relation]:
        """What the captions say of the sample's entities, each triplet once."""
        labels: dict[Words, list[Entity]] = {}
        for entity in sample.entities:
            labels.setdefault(tuple(_WORD.findall(entity.label.lower())), []).append(entity)
        labels.pop((), None)
        found = (r for caption in sample.captions for r in self._of_caption(caption, labels))
        return list(dict.fromkeys(found))

    def _of_caption(self, caption: str, labels: Mapping[Words, list[Entity]]) -> Iterator[Relation]:
        words = tuple(_WORD.findall(_OPENING.sub("", caption.lower())))
        phrases = list(_phrases(words, labels))
        starting = {phrase.start: phrase for phrase in phrases}
        for subject in phrases:
            if _word(words, subject.start - 1) not in _BEFORE:
                continue
            for predicate, end in self._predicates_at(words, subject.end):
                target = starting.get(end)
                if target and target.entity.id != subject.entity.id and _word(words, target.end) in self._after:
                    yield Relation(subject.entity.id, predicate, target.entity.id, "parser")
                    break

    def _predicates_at(self, words: Words, start: int) -> Iterator[tuple[str, int]]:
        """The predicates that the words from `start` on spell, the longest first, and where each ends."""
        starts = [start + 1] if _word(words, start) in _COPULAS else []
        for first in (start, *starts):
            for length in range(self._longest, 0, -1):
                predicate = self._words.get(words[first : first + length])
                if predicate is not None:
                    yield predicate, first + length


def _phrases(words: Words, labels: Mapping[Words, list[Entity]]) -> Iterator[Phrase]:
    """Every label in the words, the longest at each place, that one entity alone can be meant by."""
    longest = max(map(len, labels), default=0)
    place = 0
    while place < len(words):
        length = next((n for n in range(longest, 0, -1) if words[place : place + n] in labels), 0)
        if length:
            known = labels[words[place : place + length]]
            start = _first_word(words, place, {a.lower() for entity in known for a in entity.attributes})
            meant = [entity for entity in known if _fits(entity, words[start:place], known)]
            if len(meant) == 1:
                yield Phrase(start, place + length, meant[0])
        place += max(length, 1)


def _first_word(words: Words, place: int, attributes: set[str]) -> int:
    """Where the phrase begins whose label is at `place`: attributes before it, and an article before these."""
    start = place
    while start and words[start - 1] in attributes:
        start -= 1
    return start - 1 if start and words[start - 1] in _ARTICLES else start


def _fits(entity: Entity, before: Words, known: Sequence[Entity]) -> bool:
    """Whether the entity has all the attributes that the words name."""
    named = {a.lower() for each in known for a in each.attributes} & set(before)
    return named <= {a.lower() for a in entity.attributes}


def _word(words: Words, place: int) -> str:
    return words[place] if 0 <= place < len(words) else ""


def read_predicates(file: Path) -> list[str]:
    """The predicates of `--captions`; raises UserError."""
    try:
        return list(read_relations(file))
    except UserError as error:
        raise UserError(str(error).replace("data.relations", "--captions")) from error
