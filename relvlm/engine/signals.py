"""Told to end, by Slurm (preemption, the time limit ahead) or by a user: a run saves, ends, and asks to be requeued.

Signals go to any one rank, or to all. What a rank was told goes round with each step in a collective of its own on the
CPU, which travels while the step is computed, so all ranks end after the same step. Before the first step there is
nothing to save: a process ends at once.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping
from types import FrameType
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from relvlm.stopping import SIGNALS

MARGIN_S = 120.0  # before the end of the job's time, as `--signal=USR1@120` of slurm/*.sh


class Asked(NamedTuple):
    """A flag on its way round."""

    flag: Tensor
    work: Any


class Told:
    """What this process is told while training, from `with` on; `agreed` makes it what all ranks were."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """A collective of all ranks, where there are several."""
        self.reason = ""
        several = dist.is_initialized() and dist.get_world_size() > 1
        self._group = dist.new_group(backend="gloo") if several else None
        end = environment.get("SLURM_JOB_END_TIME", "")
        self._end = float(end) - MARGIN_S if end.isdecimal() else float("inf")
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Told:
        self._before = {number: signal.signal(number, self._hear) for number in SIGNALS}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def ask(self) -> Asked:
        """Send round what this rank was told; the answer is there when the step is computed."""
        if not self.reason and time.time() > self._end:
            self.reason = "the job's time is nearly over"
        flag = torch.tensor(bool(self.reason), dtype=torch.uint8)
        if self._group is None:
            return Asked(flag, None)
        return Asked(flag, dist.all_reduce(flag, dist.ReduceOp.MAX, self._group, async_op=True))

    def agreed(self, asked: Asked) -> bool:
        """Whether any rank had been told when all of them asked."""
        if asked.work is not None:
            asked.work.wait()
        if asked.flag and not self.reason:
            self.reason = "another rank was told to end"
        return bool(asked.flag)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self.reason = f"told to end by {signal.Signals(number).name}"
