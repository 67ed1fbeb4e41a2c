"""A training step timed, and what its backward pass keeps in memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor, nn


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


def kept_bytes(loss: Callable[[], Tensor], model: nn.Module, dtype: torch.dtype) -> int:
    """Bytes of distinct storages that autograd keeps for the backward pass, without the parameters."""
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
    storages: dict[int, int] = {}

    def keep(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if storage.data_ptr() not in parameters:
            storages[storage.data_ptr()] = storage.nbytes()
        return x

    device = next(model.parameters()).device.type
    mixed = torch.autocast(device, dtype, enabled=dtype != torch.float32)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x), mixed:
        total = loss()
    total.backward()  # only now may a storage be freed and its address used again
    return sum(storages.values())


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()
