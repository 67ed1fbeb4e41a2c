"""Time, memory and what the machine can do, measured the same way for everything that is compared."""

from __future__ import annotations

import platform
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch


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
