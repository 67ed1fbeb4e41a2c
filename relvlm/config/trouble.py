"""What a run does about trouble: how long it waits, what a spike is. Fields as in relvlm/config/schema.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from relvlm.config.ranges import FREE, Range
from relvlm.config.training import LAST_STEP

SECONDS = Range(1, 1_000_000)


@dataclass(frozen=True)
class DeadlinesConfig:
    """Seconds after which a rank that gets no further ends the run, with its cause as the last line."""

    start: Annotated[float, "from the meeting of the ranks to the first step", SECONDS, FREE] = 900.0
    first_step: Annotated[float, "of the first step, in which layers may be compiled", SECONDS, FREE] = 900.0
    step: Annotated[
        float, "of a later step, its wait for data included; at least five times the longest so far", SECONDS, FREE
    ] = 90.0
    save: Annotated[float, "that training stands still for a checkpoint, and of the end", SECONDS, FREE] = 600.0
    evaluation: Annotated[float, "of an evaluation of one checkpoint (eval.every)", SECONDS, FREE] = 3600.0

    @property
    def longest(self) -> float:
        """Seconds of the longest one."""
        return max(self.start, self.first_step, self.step, self.save, self.evaluation)


@dataclass(frozen=True)
class SpikesConfig:
    """Losses far above those before, each kind of batch for itself; they are logged and counted."""

    factor: Annotated[
        float,
        "median absolute deviations above the median from which a loss is a spike; 0: none",
        Range(0, 1_000_000),
        FREE,
    ] = 10.0
    window: Annotated[int, "steps of a kind that median and deviation are of", Range(2, 1_000_000), FREE] = 128
    max_steps: Annotated[
        int, "spikes in a row that make a run go back, as skipped steps do; 0 is never", Range(0, LAST_STEP), FREE
    ] = 0
