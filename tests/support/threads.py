"""Ranks as threads of one process."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor


class Threads:
    """Of torch.distributed what relvlm.ranks calls, between threads: a number waits for all others."""

    def __init__(self, size: int) -> None:
        self.size, self.slots, self.calls = size, [None] * size, 0
        self.meeting, self.own = threading.Barrier(size, timeout=30), threading.local()

    def run(self, work: Callable[[int], Any]) -> list[Any]:
        def of_rank(rank: int) -> Any:
            self.own.rank = rank
            try:
                return work(rank)
            except BaseException:
                self.meeting.abort()  # nobody is to wait for this one
                raise

        with ThreadPoolExecutor(self.size) as pool:
            return list(pool.map(of_rank, range(self.size)))

    def exchange(self, value: Any) -> list[Any]:
        self.slots[self.own.rank] = value
        self.calls += 1
        self.meeting.wait()
        found = list(self.slots)
        self.meeting.wait()
        return found

    def is_initialized(self) -> bool:
        return True

    def get_rank(self) -> int:
        return self.own.rank

    def get_world_size(self) -> int:
        return self.size

    def all_reduce(self, x: Tensor) -> None:
        x.copy_(torch.stack(self.exchange(x.clone())).sum(0))

    def all_gather(self, blocks: list[Tensor], x: Tensor) -> None:
        for block, found in zip(blocks, self.exchange(x.clone()), strict=True):
            block.copy_(found)

    def all_gather_object(self, values: list[Any], value: Any, group: None = None) -> None:
        values[:] = self.exchange(value)

    def barrier(self) -> None:
        self.exchange(None)
