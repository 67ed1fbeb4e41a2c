"""`relvlm`, but the images of some positions in the data are NaN on one rank: what a poisoned record does to a loss.

POISON=FIRST-LAST:RANK,... names positions (from 0) and the rank.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import torch

from relvlm import cli
from relvlm.data.batches.loader import StepDataset

POSITIONS = [
    (int(first), int(last), rank)
    for where, rank in (each.split(":") for each in os.environ["POISON"].split(","))
    for first, last in [where.split("-")]
]


def main() -> None:
    chunks_of: Any = StepDataset.__getitem__

    def poisoned(self: StepDataset, plan: Any) -> Any:
        chunks = chunks_of(self, plan)
        here = any(
            first <= plan.step <= last and os.environ.get("RANK", "0") == rank for first, last, rank in POSITIONS
        )
        return [replace(chunk, pixels=chunk.pixels * torch.nan) for chunk in chunks] if here else chunks

    StepDataset.__getitem__ = poisoned  # type: ignore[method-assign]
    cli.main()


if __name__ == "__main__":
    main()
