"""What a builder leaves out of a raw dataset: counted by reason, listed, and limited.

A record that cannot be used (a fault) is left out; too many of a kind (`max_share`) end the build. A record that a
rule of the dataset leaves out (a crowd, a box thinner than a pixel) is counted alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from reprlib import Repr
from typing import Any, TypeVar

from relvlm.errors import UserError

MAX_SHARE = 0.01  # faulty records of a kind that a build bears
FEW = 3  # faults of a kind that it bears whatever their share, so that a small set survives one
LISTED = 5  # faults that are printed; build.log has all
SHOWN = 80  # characters of a value that a line quotes
T = TypeVar("T")


class RecordFault(Exception):
    """A record that cannot be used; `reason` is the same for all alike, `detail` says what was found."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}" if self.detail else self.reason


class LeftOut(RecordFault):
    """A sound record that a rule of the dataset leaves out."""


class Faults:
    """The records of one build by kind (image, caption, box, ...), and what was left out of them."""

    def __init__(self, source: str, max_share: float = MAX_SHARE) -> None:
        self.source, self.max_share = source, max_share
        self.read: Counter[str] = Counter()
        self.faults: Counter[tuple[str, str]] = Counter()
        self.left_out: Counter[tuple[str, str]] = Counter()
        self.lines: list[str] = []
        self.notes: list[str] = []  # what else the log should say

    def sound(
        self, kind: str, records: Iterable[tuple[object, Any]], read: Callable[[Any], T], place: str
    ) -> Iterator[T]:
        """What `read` makes of each of the numbered (or named) `records`; those that it refuses are counted."""
        for number, record in records:
            self.read[kind] += 1
            try:
                yield read(record)
            except RecordFault as fault:
                self.add(kind, f"{place}[{number}]", fault)

    def add(self, kind: str, place: str, fault: RecordFault) -> None:
        """Count a record of `kind` that is left out, and list it if it is faulty."""
        if isinstance(fault, LeftOut):
            self.left_out[kind, fault.reason] += 1
            return
        self.faults[kind, fault.reason] += 1
        self.lines.append(one_line(f"{place}: {fault}"))

    def to_json(self) -> dict[str, Any]:
        """What was counted, in plain JSON types, for `include`."""
        faults, left_out = ([[*key, n] for key, n in counts.items()] for counts in (self.faults, self.left_out))
        return {"read": dict(self.read), "faults": faults, "left_out": left_out, "lines": self.lines}

    def include(self, part: dict[str, Any]) -> None:
        """Add what `to_json` of another part of the build says."""
        self.read.update(part["read"])
        self.faults.update({(kind, reason): n for kind, reason, n in part["faults"]})
        self.left_out.update({(kind, reason): n for kind, reason, n in part["left_out"]})
        self.lines += part["lines"]

    def check(self, kinds: Iterable[str] | None = None) -> None:
        """Raise UserError, with the table and the first faults, where too many records of a kind are faulty."""
        bad = [kind for kind in (self.read if kinds is None else kinds) if _of(self.faults, kind) > self._borne(kind)]
        if bad:
            shares = ", ".join(f"{_of(self.faults, kind)} of {self._meant(kind)} {kind} records" for kind in bad)
            lines = [*self.table(), *self.lines[:LISTED]]
            raise UserError(
                f"{self.source}: {shares} cannot be used, --max-faults is {self.max_share:g} (mend the files, or "
                "allow more)\n" + "\n".join(lines)
            )

    def _meant(self, kind: str) -> int:
        """Records of a kind but for those that a rule leaves out."""
        return self.read[kind] - _of(self.left_out, kind)

    def _borne(self, kind: str) -> float:
        few = min(FEW, self._meant(kind) - 1) if self.max_share else 0
        return max(self.max_share * self._meant(kind), few)

    def table(self) -> list[str]:
        """Lines of counts by kind and reason."""
        counts = [(*key, "faulty", n) for key, n in self.faults.items()]
        counts += [(*key, "by rule", n) for key, n in self.left_out.items()]
        order = list(self.read)
        counts.sort(key=lambda row: (order.index(row[0]), row[2] != "faulty", -row[3], row[1]))
        return [one_line(f"{n:>8} of {self.read[k]} {k} records left out, {how}: {why}") for k, why, how, n in counts]

    def log(self) -> list[str]:
        """Lines of build.log: the table, notes, every faulty record; empty where nothing was left out."""
        return [*self.table(), *self.notes, *self.lines]


def _of(counts: Counter[tuple[str, str]], kind: str) -> int:
    return sum(count for (of, _), count in counts.items() if of == kind)


def one_line(text: str) -> str:
    """`text` with its control characters and line ends escaped: names come from files."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shown(value: object) -> str:
    """A short form of any JSON value, however long or deep."""
    text = _REPR.repr(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


_REPR = Repr()
_REPR.maxstring = _REPR.maxother = SHOWN
