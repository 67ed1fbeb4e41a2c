"""Instructions that a warp runs for a tile of scores, counted in the assembly: the loop over blocks, once through."""

from __future__ import annotations

import re
from typing import NamedTuple

TILE = 32 * 32  # scores that counts are for
INSTRUCTION = re.compile(r"/\*([0-9a-f]{4,})\*/\s+([^;]*);")
BACK = re.compile(r"\bBRA\b.*?\b0x([0-9a-f]+)")


class Loop(NamedTuple):
    """Places of the first and last instruction."""

    first: int
    last: int

    @property
    def size(self) -> int:
        return self.last - self.first + 1

    def holds(self, other: Loop) -> bool:
        return self != other and self.first <= other.first and other.last <= self.last


def loops(code: str) -> list[Loop]:
    """Those with products on tensor cores, the smallest first."""
    found = INSTRUCTION.findall(code)
    places = {int(address, 16): place for place, (address, _) in enumerate(found)}
    jumps = [(place, BACK.search(text)) for place, (_, text) in enumerate(found)]
    every = [Loop(places[int(to[1], 16)], place) for place, to in jumps if to and places[int(to[1], 16)] <= place]
    with_products = [loop for loop in every if any("MMA" in text for _, text in found[loop.first : loop.last + 1])]
    return sorted(with_products, key=lambda loop: loop.size)


def per_tile(code: str, scores: int, trips: int) -> int:
    """Of the loop that works on so many scores at a time, nothing skipped, in which one over the width of a head goes
    round so many times (1: there is none, it is unrolled)."""
    found = loops(code)
    if trips == 1:
        once = found[0].size
    else:
        inner = found[0]
        once = next(loop for loop in found if loop.holds(inner)).size + (trips - 1) * inner.size
    return once * TILE // scores
