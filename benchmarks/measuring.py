"""Time, memory and what the machine can do, measured the same way for everything that is compared."""

from __future__ import annotations

import gc
import platform
import subprocess
import time
from collections.abc import Callable, Iterator
from itertools import accumulate
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch._C._profiler import _EventType
from torch.profiler import ProfilerActivity


def seconds(run: Callable[[], Any], device: torch.device) -> float:
    """Of one call."""
    if device.type == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        start.record()
        run()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3
    start_time = time.perf_counter()
    run()
    return time.perf_counter() - start_time


def interleaved(
    sides: dict[str, Callable[[], Callable[[], Any]]], device: torch.device, repeats: int
) -> dict[str, list[float]]:
    """Seconds of each side, one after another in every repeat (A B A B). A side prepares what it then runs."""
    for prepare in sides.values():
        prepare()()
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, prepare in sides.items():
            run = prepare()
            times[name].append(seconds(run, device))
            del run
    return times


def speedup(times: dict[str, list[float]], slow: str, fast: str) -> float:
    """Median of the ratios within each repeat, which the machine's moods touch alike."""
    return median(a / b for a, b in zip(times[slow], times[fast], strict=True))


def peak_bytes(run: Callable[[], Any], device: torch.device) -> int:
    """Most memory at a time, during the call, of tensors that were gone again at its end (unlike gradients)."""
    gc.collect()
    with torch.profiler.profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profile:
        run()
        if device.type == "cuda":
            torch.cuda.synchronize()
    events = sorted(_allocations(profile, device), key=lambda event: event.start_time_ns)
    begun: dict[int, int] = {}  # address -> place among the events
    sizes = [0] * len(events)
    for place, event in enumerate(events):
        address, size = event.extra_fields.ptr, event.extra_fields.alloc_size
        if size > 0:
            begun[address] = place
        elif address in begun:
            sizes[begun.pop(address)], sizes[place] = -size, size
    return max(accumulate(sizes), default=0)


def _allocations(profile: torch.profiler.profile, device: torch.device) -> Iterator[Any]:
    waiting = list(profile.profiler.kineto_results.experimental_event_tree())
    while waiting:
        event = waiting.pop()
        waiting += event.children
        if event.tag == _EventType.Allocation and event.extra_fields.device.type == device.type:
            yield event


def gemm_rate(device: torch.device, dtype: torch.dtype, repeats: int = 7) -> float:
    """FLOP/s of a large square matrix product."""
    n = 8192 if device.type == "cuda" else 1536
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    times = interleaved({"gemm": lambda: lambda: a @ b}, device, repeats)["gemm"]
    return 2 * n**3 / median(times)


def copy_bandwidth(device: torch.device, repeats: int = 7) -> float:
    """Bytes/s read and written by a copy that no cache holds."""
    source = torch.ones((1 << 30 if device.type == "cuda" else 1 << 28) // 4, device=device)
    target = torch.empty_like(source)
    times = interleaved({"copy": lambda: lambda: target.copy_(source)}, device, repeats)["copy"]
    return 2 * source.numel() * 4 / median(times)


def machine(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    models = [line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    return f"{models[0] if models else platform.processor()}, {torch.backends.cpu.get_cpu_capability()}"


def commit() -> str:
    """Of the source tree, with a mark where it has changes; empty where it is no clone."""
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=Path(__file__).parent, capture_output=True, text=True
    )
    return done.stdout.strip()


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []
