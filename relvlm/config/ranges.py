"""What a field may hold, as a part of its annotation: one place for the checker and for `relvlm config --schema`.

    steps: Annotated[int, "updates of the weights", Range(1, 9_999_999)] = 200_000

A number has a Range, a string a Text, a list a Length (and the range of its entries). `Literal` and `bool` are their
own range. Further marks: `Resume` says what a resumed run may do with the field.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, Literal

from relvlm.paths import expand

Resume = Literal["accept", "free", "never"]


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`; `above` and `below` leave out the bound itself. Finite in any case."""

    low: float
    high: float = math.inf
    above: bool = False
    below: bool = False

    def __str__(self) -> str:
        low = f"{'above' if self.above else 'at least'} {self.low:,}"
        if self.high == math.inf:
            return f"{low}, finite"
        return f"{low} and {'below' if self.below else 'at most'} {self.high:,}"

    def fault(self, value: Any) -> str | None:
        """What is wrong with a number, None for nothing."""
        right = math.isfinite(value) and (value > self.low if self.above else value >= self.low)
        right = right and (value < self.high if self.below else value <= self.high)
        return None if right else f"{value}: must be {self}"


@dataclass(frozen=True)
class Text:
    """A string of something; a `path` has `~` and `$VAR` replaced."""

    path: bool = False

    def __str__(self) -> str:
        return "not empty; ~ and $VAR are expanded" if self.path else "not empty"

    def fault(self, value: str) -> str | None:
        """What is wrong with a string, None for nothing."""
        if not value.strip():
            return f"{value!r}: must not be empty"
        return f"{value!r}: holds a control character" if re.search(r"[\x00-\x1f\x7f]", value) else None

    def read(self, value: str) -> str:
        """The string that a fault-free one stands for; raises UserError."""
        return expand(value) if self.path else value


@dataclass(frozen=True)
class Length:
    """From `low` to `high` entries, each within `entry`."""

    low: int
    high: int
    entry: Range | Text

    def __str__(self) -> str:
        count = f"{self.low}" if self.low == self.high else f"{self.low} to {self.high}"
        return f"{count} entries, each {self.entry}"

    def fault(self, value: list[Any]) -> str | None:
        """What is wrong with the number of entries, None for nothing."""
        right = self.low <= len(value) <= self.high
        return None if right else f"{value}: has {len(value)} entries, must have {str(self).split(',')[0]}"


Limits = Range | Text | Length


@dataclass(frozen=True)
class AtResume:
    """Whether a resumed run may have another value.

    `accept` (where nothing is said): if `resume.accept` names it, and then it takes effect. `free`: yes, as it changes
    nothing that is computed, but for rounding. `never`: what was computed so far rests on it.
    """

    rule: Resume


FREE, NEVER = AtResume("free"), AtResume("never")


@dataclass(frozen=True)
class ByContent:
    """Of a path: at a resume it is the content that must be the same, wherever it lies."""


BY_CONTENT = ByContent()

SHARE = Range(0, 1)
PART = Range(0, 1, above=True)
BELOW_ONE = Range(0, 1, below=True)
WEIGHT = Range(0, 1_000_000)
DEVIATION = Range(0, 100)
NAME, PATH = Text(), Text(path=True)


def limits_of(marks: tuple[Any, ...]) -> Limits | None:
    """The range among the marks of an annotation."""
    return next((mark for mark in marks if isinstance(mark, Range | Text | Length)), None)


def resume_rule(marks: tuple[Any, ...]) -> Resume:
    """What the marks of an annotation say of a resumed run."""
    return next((mark.rule for mark in marks if isinstance(mark, AtResume)), "accept")
