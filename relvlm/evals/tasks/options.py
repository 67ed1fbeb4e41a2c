"""Benchmarks of several texts for one image, one of them right: it must score strictly above all others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from relvlm.errors import UserError
from relvlm.evals.files import Row, require
from relvlm.evals.scoring.photos import CropBox
from relvlm.evals.tasks.pairs import Example, Pair
from relvlm.evals.tasks.records import Record
from relvlm.evals.tasks.task import Card

LABEL = r".+_\d+"  # <id>_<option>


@dataclass(frozen=True)
class Choice:
    """One example of a `piece`: its rows, option by option; `answer` is the place of the right one."""

    piece: str
    rows: tuple[Row, ...]
    answer: int

    @property
    def unit(self) -> str:
        """Its name in paired tests."""
        return f"{self.piece} {self.rows[0]['label']}"

    @property
    def won(self) -> bool:
        """By score."""
        return self.won_by("score")

    def won_by(self, field: str) -> bool:
        """The right option's field strictly above those of all others: a tie is a loss."""
        right = self.rows[self.answer][field]
        return all(right > row[field] for i, row in enumerate(self.rows) if i != self.answer)

    def card(self, what: str = "", relation: str = "") -> Card:
        """The right text first, then the others; `relation`: that of the right one, where it is known."""
        right = self.rows[self.answer]
        lines = [("caption:", right.get("text", ""), right["score"])]
        lines += [("foil:", row.get("text", ""), row["score"]) for row in self.rows if row is not right]
        box = tuple(right["box"]) if "box" in right else None
        return Card((right.get("image", ""),), tuple(lines), self.won, self.piece, what, box, relation)


def choice_pairs(
    identity: str, image: str, texts: Sequence[str], fields: Row, box: CropBox | None = None, answer: int | None = None
) -> Example:
    """The pairs of an example; without `answer` the first text is right, and rows say nothing of it."""
    shown: Row = {"box": list(box)} if box else {}
    shown |= {} if answer is None else {"answer": answer}
    rows = ({"label": f"{identity}_{i}", **fields, **shown} for i in range(len(texts)))
    return tuple(Pair(image, text, row, box) for text, row in zip(texts, rows, strict=True))


def choices(rows: Sequence[Row], kind: str) -> list[Choice]:
    """Join rows labelled `<id>_<option>` within each piece.

    Raises UserError for rows of another `kind`, where an option is absent, and for an answer that is none of them.
    """
    for row in rows:
        require(row, ("piece", "label"), "scores", f"{kind} score")

    def identity(row: Row) -> tuple[str, str]:
        return str(row["piece"]), str(row["label"]).rpartition("_")[0]

    grouped = groupby(sorted(rows, key=identity), key=identity)
    return [_choice(piece, name, list(group)) for (piece, name), group in grouped]


def _choice(piece: str, name: str, group: Sequence[Row]) -> Choice:
    options = {int(str(row["label"]).rpartition("_")[2]): row for row in group}
    if sorted(options) != list(range(len(options))) or len(options) < 2:
        raise UserError(f"scores: {name} of {piece}: not all of its options are there (score each)")
    found = [options[i] for i in range(len(options))]
    answers = {_answer(row, len(found)) for row in found}
    if len(answers) > 1:
        raise UserError(f"scores: {name} of {piece}: answer: not the same for all of its options (score it again)")
    return Choice(piece, tuple(found), answers.pop())


def _answer(row: Row, end: int) -> int:
    record = Record(row, "scores", "score")
    return record.place("answer", end) if record.has("answer") else 0
