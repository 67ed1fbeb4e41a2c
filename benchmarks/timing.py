"""Seconds of a call, measured the same way for everything that is compared.

On a GPU one call between two events would time Python wherever kernels are short. So many calls are captured as one
CUDA graph, and its replay is timed; what cannot be captured is called so many times between two events, and says so.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from statistics import median
from typing import Any

import torch

CALLS = 20  # of a graph, at least
REPLAYS = 2  # of a measurement
CPU_SECONDS: list[bool] = []  # whether a CPU's times are those of this process: see `count_cpu_seconds`
Run = Callable[[], Any]


def count_cpu_seconds() -> None:
    """From now on times on a CPU are of this process alone, of all its threads: other work does not lengthen them."""
    CPU_SECONDS.append(True)


@dataclass(frozen=True)
class Timer:
    """`seconds()` of one call; `how` they are measured; `calls` of one graph."""

    seconds: Callable[[], float]
    how: str
    calls: int
    once: Callable[[], Any]  # all calls, once


@dataclass
class Times:
    """Seconds of one call, one number a repeat; none, with the `error`, where it failed."""

    seconds: list[float] = field(default_factory=list)
    how: str = ""
    error: str = ""

    @property
    def median(self) -> float:
        return median(self.seconds)


def timer(runs: Sequence[Run], device: torch.device, calls: int = CALLS) -> Timer:
    """Of calls that take `runs` in turn: the same work on copies of its inputs, so that no cache holds them.

    On a GPU, made and used inside of `side_stream`.
    """
    if device.type != "cuda":
        return _host_timer(runs)
    calls = max(calls, len(runs))
    turns = [runs[i % len(runs)] for i in range(calls)]
    try:
        graph = capture(turns)
    except Exception as error:  # whatever a library may raise that cannot be captured
        torch.cuda.synchronize()
        again = _all(turns)
        return Timer(_between_events(again, calls), f"{calls} calls: {brief(error)}", calls, again)
    return Timer(_between_events(graph.replay, calls), f"graph of {calls} calls", calls, graph.replay)


def capture(turns: Sequence[Run]) -> Any:
    """One CUDA graph of these calls, each after a first one outside. Outputs live until the same work's next turn."""
    for run in dict.fromkeys(turns):
        run()
    torch.cuda.synchronize()
    graph, outputs = torch.cuda.CUDAGraph(), {}
    with torch.cuda.graph(graph, stream=torch.cuda.current_stream()):
        for run in turns:
            outputs[run] = run()
    return graph


@contextmanager
def side_stream(device: torch.device) -> Iterator[None]:
    """What is timed, and the forward of a backward that is, runs in here: nothing on the main stream is captured."""
    if device.type != "cuda":
        yield
        return
    torch.cuda.synchronize()
    with torch.cuda.stream(_stream(device)):
        yield
    torch.cuda.synchronize()


@cache
def _stream(device: torch.device) -> Any:
    return torch.cuda.Stream(device)


def _all(turns: Sequence[Run]) -> Run:
    def run() -> None:
        for turn in turns:
            turn()

    return run


def _between_events(run: Run, calls: int) -> Callable[[], float]:
    def seconds() -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        run()  # the host is ahead when the clock starts
        start.record()
        for _ in range(REPLAYS):
            run()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3 / calls / REPLAYS

    return seconds


def _host_timer(runs: Sequence[Run]) -> Timer:
    turn = iter(range(1 << 62))
    clock, how = (time.process_time, "CPU seconds of one call") if CPU_SECONDS else (time.perf_counter, "one call")

    def once() -> Any:
        return runs[next(turn) % len(runs)]()

    def seconds() -> float:
        began = clock()
        once()
        return clock() - began

    return Timer(seconds, how, 1, once)


def interleaved(
    sides: dict[str, Callable[[int], Run]], device: torch.device, repeats: int, copies: int = 1
) -> dict[str, Times]:
    """Times of each side, one after another in every repeat (A B A B).

    A side prepares, from copy number i of its inputs, what it then runs: on a GPU once, and that may be run again and
    again; on a CPU anew for every repeat. One that fails has its error in place of times.
    """
    times = {name: Times() for name in sides}
    timers: dict[str, Timer] = {}
    with side_stream(device):
        for repeat in range(repeats + 1):  # the first to warm up
            for name, prepare in sides.items():
                if not times[name].error:
                    _take_turn(times[name], timers, name, prepare, device, copies, warm_up=not repeat)
    return times


def _take_turn(
    times: Times, timers: dict[str, Timer], name: str, prepare: Callable[[int], Run], device: torch.device,
    copies: int, warm_up: bool,
) -> None:  # fmt: skip
    try:
        if name not in timers:
            timers[name] = timer([prepare(i) for i in range(copies)], device)
        took = timers[name].seconds()
        times.how = timers[name].how
    except Exception as error:  # a side that fails is a row of the table, no end of it
        times.seconds, times.error = [], brief(error)
        timers.pop(name, None)
        return
    if not warm_up:
        times.seconds.append(took)
    if device.type != "cuda":
        del timers[name]


def speedup(slow: Times, fast: Times) -> float:
    """Median of the ratios within each repeat, which the machine's moods touch alike."""
    return median(a / b for a, b in zip(slow.seconds, fast.seconds, strict=True))


def copies_beyond_cache(size: int, device: torch.device) -> int:
    """How many inputs of `size` bytes taken in turn make a GPU's cache of no use; a CPU reuses one."""
    if device.type != "cuda":
        return 1
    cache = torch.cuda.get_device_properties(device).L2_cache_size
    return max(1, min(CALLS, -(-3 * cache // max(size, 1))))


def brief(error: Exception) -> str:
    """Kind and first line of an error."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200] if lines else ''}"
