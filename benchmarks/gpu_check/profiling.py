"""Which kernels ran on the device, how often and how long."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

LAUNCH = re.compile(r"(cuda|cu)(Launch|Memcpy|Memset|GraphLaunch)\w*")


@dataclass(frozen=True)
class Kernel:
    name: str
    count: int
    seconds: float


@dataclass(frozen=True)
class Profile:
    """`kernels`, the longest first; `launches` by the host; `busy`: seconds with at least one kernel on the device.

    On a CPU ops stand for kernels and for launches.
    """

    kernels: list[Kernel]
    launches: int
    busy: float


def profiled(run: Callable[[], Any], device: torch.device) -> Profile:
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device.type == "cuda")
    with profile(activities=activities, acc_events=True) as found:
        run()
        if device.type == "cuda":
            torch.cuda.synchronize()
    return summary(list(found.events()), device.type)


def summary(events: list[Any], device: str) -> Profile:
    """Of the profiler's events. A range around several kernels that the device's timeline repeats is no kernel."""
    on_device = DeviceType.CUDA if device == "cuda" else DeviceType.CPU
    ran = [e for e in events if e.device_type == on_device and not (device == "cuda" and _is_range(e))]
    spent: dict[str, list[float]] = {}
    for event in ran:
        took = event.time_range.elapsed_us() if device == "cuda" else event.self_cpu_time_total
        spent.setdefault(event.name, []).append(took)
    kernels = [Kernel(name, len(times), sum(times) / 1e6) for name, times in spent.items()]
    starts = [e for e in events if e.device_type == DeviceType.CPU and (device != "cuda" or LAUNCH.match(e.name))]
    spans = [(e.time_range.start, e.time_range.end) for e in ran]
    return Profile(sorted(kernels, key=lambda kernel: -kernel.seconds), len(starts), covered(spans) / 1e6)


def _is_range(event: Any) -> bool:
    return getattr(event, "is_user_annotation", False)


def covered(spans: list[tuple[float, float]]) -> float:
    """Length of the union of intervals."""
    total, until = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total
