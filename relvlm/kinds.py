"""The one table of batch kinds: what each draws from, what its texts look at, which objectives it trains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

BatchKind = Literal["captions", "entities", "mrc", "vsg", "joint"]

ACCURACIES = ("itm", "mrc")  # objectives that report how often they are right beside their loss


@dataclass(frozen=True)
class Kind:
    """A row of the table.

    `datasets`: the section of the config's `data` whose shard sets it draws from. `boxed`: its texts may look at a box,
    for which all patches of the image are needed. `weight`: of its losses in the sum of a step.
    """

    datasets: str
    objectives: tuple[str, ...]
    boxed: bool = False
    weight: float = 1.0

    @property
    def aligned(self) -> bool:
        """Whether its texts say what is seen, so that they are contrasted with others' (ITC)."""
        return "itc" in self.objectives

    @property
    def values(self) -> list[str]:
        """Names of the numbers that a step of this kind logs."""
        return [*self.objectives, *(f"{name}_accuracy" for name in self.objectives if name in ACCURACIES)]


KINDS: dict[BatchKind, Kind] = {
    "captions": Kind("captions", ("itc", "itm", "mlm")),
    "entities": Kind("entities", ("itc", "itm", "mlm", "bbox"), boxed=True),
    "mrc": Kind("graphs", ("mrc",), boxed=True),
    "vsg": Kind("graphs", ("itc", "itm", "mlm")),
}
# Of what a joint batch is made, in that order: what has no masked words comes last.
SECTION_KINDS: tuple[BatchKind, ...] = tuple(sorted(KINDS, key=lambda kind: not KINDS[kind].aligned))
# A joint batch has sections of the other kinds, about the same photos.
BATCH_KINDS: tuple[BatchKind, ...] = (*KINDS, "joint")


def datasets_of(kind: BatchKind) -> str:
    """The section of the config's `data` that a kind of batch draws from."""
    return KINDS[kind].datasets if kind in KINDS else kind
