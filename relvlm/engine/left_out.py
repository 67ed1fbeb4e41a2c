"""What the loaders of all ranks have left out; how much of it ends a run.

The numbers travel in batches, with the samples, and are added up over ranks where a run logs: they are the same on
every rank, for any number of ranks and workers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from relvlm.data.batches.batch import LEFT_OUT
from relvlm.errors import ToldByFirstRank, UserError
from relvlm.ranks import rank

BORNE = 10  # faulty records that are never too many, unless none is allowed: early on, a few are a large share


class LeftOut:
    """Counts since the start of this process's run."""

    def __init__(self, max_rate: float) -> None:
        self.max_rate, self.images = max_rate, 0
        self.counts: Counter[str] = Counter()

    def add(self, images: float, numbers: Iterable[float]) -> None:
        """A step's over all ranks: its images, and numbers in the order of LEFT_OUT."""
        self.images += int(images)
        self.counts.update({name: int(number) for name, number in zip(LEFT_OUT, numbers, strict=True)})

    def check(self) -> None:
        """Raise UserError, on all ranks alike, where too large a share of the records is faulty."""
        faults = self.counts["faults"]
        read = self.images + faults
        if faults > max(self.max_rate * read, BORNE if self.max_rate else 0):
            raise (ToldByFirstRank if rank() else UserError)(
                f"data.max_fault_rate: {faults} of {read} records read on all ranks are faulty ({faults / read:.2%}), "
                f"at most {self.max_rate:.2%} may be (each is named in the log of its rank; relvlm data lint DIR "
                "lists all; allow more, or build the set again)"
            )

    def __str__(self) -> str:
        """`faults 3, cut_captions 12`; empty where nothing was left out."""
        return ", ".join(f"{name} {self.counts[name]}" for name in LEFT_OUT if self.counts[name])
