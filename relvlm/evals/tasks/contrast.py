"""Benchmarks of two scores an example, a right one that must be strictly the higher (VALSE, SVO, SugarCrepe)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from relvlm.errors import UserError
from relvlm.evals.files import Row


@dataclass(frozen=True)
class Contrast:
    """The two rows of one example."""

    right: Row
    wrong: Row

    @property
    def won(self) -> bool:
        """Right strictly above wrong: a tie is a loss."""
        return self.right["score"] > self.wrong["score"]


def contrasts(rows: Sequence[Row], group: str | None, endings: tuple[str, str]) -> list[Contrast]:
    """Join rows labelled `<id>_<ending>`, right ending first, within each value of `group`.

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
        if len(half) != 2:
            absent = next(e for e in endings if e not in half)
            raise UserError(
                f"scores: {identity}_{absent} of {name or 'the set'}: absent (score both of a pair)"
            )
    right, wrong = endings
    return [Contrast(half[right], half[wrong]) for half in halves.values()]
