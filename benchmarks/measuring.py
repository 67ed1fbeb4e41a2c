"""What the machine can do, and which it is."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Callable
from pathlib import Path

import torch
from timing import interleaved


def gemm_rate(device: torch.device, dtype: torch.dtype, repeats: int = 7, n: int = 0) -> float:
    """FLOP/s of a product of square matrices, n x n, of random numbers (zeros run faster)."""
    n = n or (8192 if device.type == "cuda" else 1536)
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    return 2 * n**3 / _seconds(lambda: a @ b, device, repeats)


def gemm_rate_by(clock: Callable[[], float], n: int = 1536) -> float:
    """The same on the CPU in fp32, of the fastest of some, by a clock such as that of the process's CPU seconds."""
    a, b = torch.randn(2, n, n).unbind(0)
    seconds = []
    for _ in range(5):
        began = clock()
        torch.mm(a, b)
        seconds.append(clock() - began)
    return 2 * n**3 / min(seconds)


def copy_bandwidth(device: torch.device, repeats: int = 7, size: int = 0) -> float:
    """Bytes/s read and written by a copy, of `size` bytes, that no cache holds."""
    size = size or (1 << 30 if device.type == "cuda" else 1 << 28)
    source = torch.ones(size // 4, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / _seconds(lambda: target.copy_(source), device, repeats)


def _seconds(run, device: torch.device, repeats: int) -> float:
    times = interleaved({"it": lambda _: run}, device, repeats)["it"]
    if times.error:
        raise RuntimeError(times.error)
    return times.median


def machine(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    models = [line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    return f"{models[0] if models else platform.processor()}, {torch.backends.cpu.get_cpu_capability()}"


def output_file(path: str) -> Path:
    """Of an argument: a file to be written at the end, whose folder is made now, lest hours of measuring be lost."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    return Path(path)


def commit() -> str:
    """Of the source tree, with a mark where it has changes; empty where it is no clone."""
    command = ["git", "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True)
    except OSError:  # no git
        return ""
    return done.stdout.strip()


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []
