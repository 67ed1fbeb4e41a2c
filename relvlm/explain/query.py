"""What is asked of a photo: a caption, or a triplet `subject; relation; object`."""

from __future__ import annotations

from dataclasses import dataclass

from relvlm.data.text import pre_caption
from relvlm.errors import UserError

SEPARATOR = ";"
EVERY_WORD = 1 << 20  # a text that is too long is refused, not cut


@dataclass(frozen=True)
class Triplet:
    """Two entities and how the first relates to the second."""

    subject: str
    relation: str
    object: str

    @property
    def swapped(self) -> Triplet:
        """Object and subject exchanged."""
        return Triplet(self.object, self.relation, self.subject)

    @property
    def text(self) -> str:
        """As verbalised scene graphs have it."""
        return f"{self.subject} {self.relation} {self.object}"


@dataclass(frozen=True)
class Query:
    """A text as the model reads it, and the triplet that it was given as, if it was."""

    text: str
    triplet: Triplet | None = None

    @property
    def words(self) -> list[str]:
        """Lower-cased, without punctuation."""
        return words_of(self.text)


def words_of(text: str) -> list[str]:
    """The words that the model reads of a text."""
    return pre_caption(text, EVERY_WORD).split()


def read_query(text: str) -> Query:
    """A triplet where there is a `;`, else a caption; UserError where a part of it has no word."""
    if SEPARATOR not in text:
        if not words_of(text):
            raise UserError(f"TEXT: {text!r} has no word (give a caption, or 'subject; relation; object')")
        return Query(text)
    parts = [part.strip() for part in text.split(SEPARATOR)]
    if len(parts) != 3 or not all(map(words_of, parts)):
        raise UserError(f"TEXT: {text!r}: a triplet has three parts (give 'subject; relation; object', or a caption)")
    triplet = Triplet(*parts)
    return Query(triplet.text, triplet)
