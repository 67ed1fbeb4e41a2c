"""Benchmarks of two scores an example, a right one that must be strictly the higher (VALSE, SVO, SugarCrepe)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from relvlm.errors import UserError
from relvlm.evals.files import Row
from relvlm.evals.tasks.task import Card

Endings = tuple[str, str]  # of the labels of the two: the right one's first


@dataclass(frozen=True)
class Contrast:
    """The two rows of one example, whose labels begin with `identity`."""

    identity: str
    right: Row
    wrong: Row

    @property
    def won(self) -> bool:
        """Right strictly above wrong: a tie is a loss."""
        return self.right["score"] > self.wrong["score"]

    @property
    def rows(self) -> tuple[Row, Row]:
        return self.right, self.wrong

    def texts_card(self, piece: str) -> Card:
        """One image, and two texts of which the first is right."""
        lines = [
            (kind, row.get("text", ""), row["score"])
            for kind, row in zip(("caption:", "foil:"), self.rows, strict=True)
        ]
        return Card((self.right.get("image", ""),), tuple(lines), self.won, piece)


def labels(endings: Endings) -> str:
    """The pattern of `<id>_<ending>`."""
    return f".+_[{''.join(endings)}]"


def contrasts(rows: Sequence[Row], group: str | None, endings: Endings) -> list[Contrast]:
    """Join rows labelled `<id>_<ending>` within each value of `group`.

    Raises UserError for another label and for an example with one score only.
    """
    halves: dict[tuple[object, str], dict[str, Row]] = {}
    for row in rows:
        identity, separator, ending = str(row.get("label", "")).rpartition("_")
        if not separator or ending not in endings:
            raise UserError(
                f"scores: label: {row.get('label')!r} is no <id>_{endings[0]} or <id>_{endings[1]}"
                " (are these the scores of another task?)"
            )
        halves.setdefault((row.get(group) if group else None, identity), {})[ending] = row
    for (name, identity), half in halves.items():
        absent = [ending for ending in endings if ending not in half]
        if absent:
            raise UserError(f"scores: {identity}_{absent[0]} of {name or 'the set'}: absent (score both of a pair)")
    right, wrong = endings
    return [Contrast(identity, half[right], half[wrong]) for (_, identity), half in halves.items()]
