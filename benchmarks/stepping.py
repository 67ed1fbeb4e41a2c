"""A training step timed."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor


def timed_step(
    loss: Callable[[], Tensor], optimizer: torch.optim.Optimizer, dtype: torch.dtype, device: torch.device
) -> float:
    _wait(device)
    began = time.perf_counter()
    optimizer.zero_grad()
    with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
        total = loss()
    total.backward()
    optimizer.step()
    _wait(device)
    return time.perf_counter() - began


def timed_update(optimizer: torch.optim.Optimizer, device: torch.device, repeats: int = 5) -> float:
    """Seconds of one update with the gradients that there are, the median."""
    seconds = []
    for _ in range(repeats):
        _wait(device)
        began = time.perf_counter()
        optimizer.step()
        _wait(device)
        seconds.append(time.perf_counter() - began)
    return median(seconds)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()
