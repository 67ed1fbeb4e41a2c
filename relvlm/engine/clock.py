"""Where a step's time goes: one clock, always in exactly one phase, so that the phases' seconds add up to the step's.

On a CPU it reads the host's time. On a GPU, whose work is queued, it puts an event into the queue at each change of
phase, and the times between them are read when the host waits for the GPU anyway: nothing waits for the clock.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps
from itertools import pairwise
from types import TracebackType
from typing import Any

import torch
import torch.distributed as dist

from relvlm.engine.columns import PHASES
from relvlm.engine.distributed import collective_backend

COLLECTIVES = (
    "all_reduce", "all_gather", "all_gather_into_tensor", "reduce_scatter", "reduce_scatter_tensor", "reduce",
    "broadcast", "all_to_all_single", "barrier",
)  # fmt: skip
Mark = Any  # seconds, or a CUDA event


class Clock:
    """Of the thread that makes it, on whose computing stream it marks time; `lap` ends a step."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.current_stream(device) if device.type == "cuda" else None
        self._thread = threading.get_ident()
        self._phase = "other"
        self._marks: list[tuple[str, Mark]] = [("other", self._mark())]
        self._laps: list[list[tuple[str, Mark]]] = []

    def phase(self, name: str) -> Phase:
        """`with clock.phase("data"):`; within another phase, which then stands still."""
        return Phase(self, name)

    def switch(self, name: str) -> str:
        """Go over to a phase; returns the one that was."""
        before, self._phase = self._phase, name
        if name != before:
            self._marks.append((name, self._mark()))
        return before

    def lap(self) -> None:
        """The step is over; the next begins at the same moment."""
        now = self._mark()
        self._laps.append([*self._marks, ("", now)])
        self._marks = [(self._phase, now)]

    def read(self) -> list[dict[str, float]]:
        """Seconds of each phase, of each lap since the last call. On a GPU it waits until the last has ended."""
        if self._stream is not None and self._laps:
            self._laps[-1][-1][1].synchronize()
        laps, self._laps = self._laps, []
        return [self._seconds(lap) for lap in laps]

    def owns_call(self) -> bool:
        """Whether what runs now is the clock's to measure: its thread, and on a GPU its stream."""
        if threading.get_ident() != self._thread:
            return False
        return self._stream is None or torch.cuda.current_stream(self._stream.device) == self._stream

    def _mark(self) -> Mark:
        if self._stream is None:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(self._stream)
        return event

    def _seconds(self, marks: list[tuple[str, Mark]]) -> dict[str, float]:
        seconds = dict.fromkeys(PHASES, 0.0)
        for (phase, start), (_, end) in pairwise(marks):
            seconds[phase] += end - start if self._stream is None else start.elapsed_time(end) / 1e3
        return seconds


class Phase:
    """From `with` on, to its end."""

    def __init__(self, clock: Clock, name: str) -> None:
        self._clock, self._name = clock, name

    def __enter__(self) -> None:
        self._before = self._clock.switch(self._name)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._clock.switch(self._before)


@contextmanager
def collectives_timed(clock: Clock) -> Iterator[None]:
    """Within it, torch.distributed's collectives, ours and DeepSpeed's, are the phase `communication`.

    What is sent beside the computing (another thread, another stream, `async_op`) takes none of the step's time; what
    is waited for is in the phase that waits.
    """
    before = [(holder, name, getattr(holder, name)) for holder, name in _places()]
    for holder, name, function in before:
        setattr(holder, name, _timed(function, clock))
    try:
        yield
    finally:
        for holder, name, function in before:
            setattr(holder, name, function)


def _places() -> list[tuple[Any, str]]:
    """Where callers find the collectives: torch.distributed, and two that DeepSpeed's backend has put aside."""
    backend = collective_backend()
    aside = [name for name in ("all_gather_function", "reduce_scatter_function") if hasattr(backend, name)]
    return [*((dist, name) for name in COLLECTIVES), *((backend, name) for name in aside)]


def _timed(function: Any, clock: Clock) -> Any:
    @wraps(function)
    def timed(*args: Any, **options: Any) -> Any:
        if not clock.owns_call():
            return function(*args, **options)
        with clock.phase("communication"):
            return function(*args, **options)

    return timed
