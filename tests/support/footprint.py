"""What a call holds in memory: at most at a time, and for its backward pass."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch._C._profiler import _EventType
from torch.profiler import ProfilerActivity


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
