"""An example under its benchmark's rule. Figures, bootstrap and error browser are all made from these records."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TypeVar

from relvlm.evals.figures import shares
from relvlm.evals.figures.outcomes import Derived, Outcomes, tabulate
from relvlm.evals.files import Row
from relvlm.evals.tasks.records import Record
from relvlm.evals.tasks.task import Card

HELD_OUT = "held_out/overall"
Flags = dict[str, list[bool]]
T = TypeVar("T")


@dataclass(frozen=True)
class Verdict:
    """One example. `unit` names it in paired tests; `rows` are its lines of scores.jsonl.

    `marks`: right or wrong in each figure that counts the example, by the figure's name (a nested one as
    `dev/projective`).
    """

    unit: str
    rows: tuple[Row, ...]
    marks: Mapping[str, bool]
    card: Card

    @property
    def options(self) -> int:
        """How many there are to choose from: what was scored; of a single row, true and false."""
        return max(len(self.rows), 2)


def held_out(row: Row, where: str = "record") -> Row:
    """RelWorld's mark of a combination that training never shows, where the record has one."""
    record = Record(row, where, "benchmark")
    return {"held_out": record.flag("held_out")} if record.has("held_out") else {}


def names(row: Row, *figures: str) -> list[str]:
    """Figures that count an example beside `overall`, which count it again where it is held out."""
    return ["overall", *figures] + ([HELD_OUT] if row.get("held_out") else [])


def flags(verdicts: Sequence[Verdict]) -> Flags:
    """Right or wrong of the examples that each figure counts."""
    return _collected(verdicts, lambda v: v.marks)


def groups(verdicts: Sequence[Verdict]) -> Flags:
    """Right or wrong of the examples of each piece."""
    return _collected(verdicts, lambda v: {v.card.piece: v.card.right})


def accuracy(verdicts: Sequence[Verdict]) -> Row:
    """`overall`, and each piece's accuracy, with sizes and intervals."""
    return shares.accuracy([v.card.right for v in verdicts], groups(verdicts))


def chance(verdicts: Sequence[Verdict]) -> float:
    """Percent right of random scores, over examples of which one option each is right."""
    return 100 * fmean(1 / v.options for v in verdicts)


def nested(found: Mapping[str, T], prefix: str) -> dict[str, T]:
    """The figures called `prefix`/name, by name."""
    start = f"{prefix}/"
    return {name.removeprefix(start): part for name, part in found.items() if name.startswith(start)}


def held_out_accuracy(found: Flags, prefix: str = "") -> Row:
    """Accuracy on the held-out examples, of those whose marks begin with `prefix`; {} where there is none."""
    name = f"{prefix}{HELD_OUT}"
    return {"held_out": shares.accuracy(found[name])} if name in found else {}


def combined(derived: Derived, found: Flags) -> dict[str, float]:
    """The figures that are made of others."""
    return {name: shares.combined(how, [found[part] for part in parts]) for name, (how, parts) in derived.items()}


def outcomes(verdicts: Sequence[Verdict], derived: Derived) -> Outcomes:
    """What the bootstrap draws from: one unit an example."""
    units = ((v.unit, {name: (float(right), 1.0) for name, right in v.marks.items()}) for v in verdicts)
    return tabulate(units, derived)


def _collected(verdicts: Sequence[Verdict], parts: Callable[[Verdict], Mapping[str, bool]]) -> Flags:
    found: Flags = defaultdict(list)
    for verdict in verdicts:
        for name, right in parts(verdict).items():
            found[name].append(right)
    return dict(found)
