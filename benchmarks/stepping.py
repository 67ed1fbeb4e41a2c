"""A training step timed."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor

Clock = Callable[[], float]


def timed_step(
    loss: Callable[[], Tensor],
    optimizer: torch.optim.Optimizer,
    dtype: torch.dtype,
    device: torch.device,
    clock: Clock = time.perf_counter,
) -> float:
    _wait(device)
    began = clock()
    optimizer.zero_grad()
    with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
        total = loss()
    total.backward()
    optimizer.step()
    _wait(device)
    return clock() - began


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()
