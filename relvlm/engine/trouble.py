"""Steps that go wrong: updates that are skipped, losses that spike; how many in a row are too many.

All ranks count alike: whether a step is skipped is agreed on in it, and the losses are averages over ranks.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from statistics import median

from torch import Tensor

from relvlm.config.schema import Config
from relvlm.config.trouble import SpikesConfig
from relvlm.data.batches.batch import Batch
from relvlm.engine.run_state import Progress
from relvlm.ranks import rank

WARM_UP = 16  # losses of a kind before one of it can be a spike
LEAST = 0.01  # of the median: a deviation that is smaller counts as this
log = logging.getLogger(__name__)


class TooManyBadSteps(Exception):
    """Skipped or spiking steps in a row, up to `progress`; the message is the diagnosis."""

    def __init__(self, progress: Progress, diagnosis: str) -> None:
        super().__init__(diagnosis)
        self.progress = progress


class Spikes:
    """Losses of each kind of batch beside those before: above median + factor * (median absolute deviation)."""

    def __init__(self, config: SpikesConfig, in_a_row: int = 0) -> None:
        self.config, self.in_a_row = config, in_a_row
        self._before: dict[str, deque[float]] = {}

    def count(self, kind: str, loss: float) -> bool:
        """Whether the next step's loss is a spike. One that is not finite is none, and breaks no row of them."""
        if not self.config.factor or not math.isfinite(loss):
            return False
        before = self._before.setdefault(kind, deque(maxlen=self.config.window))
        spike = len(before) >= min(WARM_UP, self.config.window) and loss > self._bound(before)
        self.in_a_row = self.in_a_row + 1 if spike else 0
        before.append(loss)
        return spike

    def _bound(self, before: deque[float]) -> float:
        middle = median(before)
        deviation = median(abs(loss - middle) for loss in before)
        return middle + self.config.factor * max(deviation, LEAST * abs(middle))


def counted(progress: Progress, stepped: bool) -> Progress:
    """After one more step."""
    if stepped:
        return replace(progress, step=progress.step + 1, skipped=0)
    return replace(
        progress, step=progress.step + 1, skipped=progress.skipped + 1, skipped_in_all=progress.skipped_in_all + 1
    )


def report_skipped(progress: Progress, batch: Batch) -> None:
    """One line for a step that was skipped."""
    if rank() == 0:
        log.warning(
            "step %d: skipped: the loss or its gradient is not finite (%s batch of %s); %d in a row, %d in all",
            progress.step, batch.kind, batch.dataset, progress.skipped, progress.skipped_in_all,
        )  # fmt: skip


def is_too_much(progress: Progress, config: Config) -> bool:
    """Whether a run must go back, or end."""
    spiking = 0 < config.spikes.max_steps < progress.spiking
    return progress.skipped > config.max_skipped_steps or spiking


def diagnosis(progress: Progress, batch: Batch, values: Mapping[str, Tensor]) -> str:
    """What is known of the last of the steps in a row."""
    shown = ", ".join(f"{name} {value.item():.4g}" for name, value in values.items())
    skipped = f"the loss or its gradient is not finite, {progress.skipped} times in a row (max_skipped_steps)"
    spiking = f"the loss is a spike, {progress.spiking} times in a row (spikes.max_steps)"
    return (
        f"step {progress.step}: {skipped if progress.skipped else spiking}. {batch.kind} batch of {batch.dataset}: "
        f"{shown}. Lower optim.lr, or look at that dataset"
    )
