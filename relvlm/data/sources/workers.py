"""Shards made by several processes, which end with the one that started them however it ends."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from relvlm.data.sources.item import Item
from relvlm.data.sources.shard_task import Maker, finished, make_shard
from relvlm.errors import UserError

Task = tuple[int, list[Item]]
_PR_SET_PDEATHSIG = 1


def made_shards(maker: Maker, tasks: Iterable[Task], processes: int) -> Iterator[tuple[dict[str, Any], bool]]:
    """(journal entry, whether an earlier run had made it) of each shard, in the order of `tasks`.

    At most twice as many shards as processes are asked for at a time.
    """
    if processes == 1:
        for number, items in tasks:
            before = finished(maker.folder, number, items)
            yield before or make_shard(maker, number, items), before is not None
        return
    import webdataset  # noqa: F401  # before the fork: 2 s and its memory once

    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(processes, context, _start, (maker, os.getpid())) as pool:
        try:
            yield from _in_order(pool, maker, tasks, 2 * processes)
        except BrokenProcessPool as error:
            raise InterruptedBuild("a process ended by itself (out of memory? fewer --processes)") from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


class InterruptedBuild(UserError):
    """A build that the same command goes on with."""


def _in_order(
    pool: ProcessPoolExecutor, maker: Maker, tasks: Iterable[Task], ahead: int
) -> Iterator[tuple[dict[str, Any], bool]]:
    waiting: deque[Future[dict[str, Any]] | dict[str, Any]] = deque()
    for number, items in tasks:
        waiting.append(finished(maker.folder, number, items) or pool.submit(_make, number, items))
        if len(waiting) >= ahead:
            yield _result(waiting.popleft())
    while waiting:
        yield _result(waiting.popleft())


def _result(entry: Future[dict[str, Any]] | dict[str, Any]) -> tuple[dict[str, Any], bool]:
    return (entry, True) if isinstance(entry, dict) else (entry.result(), False)


_maker: Maker | None = None


def _start(maker: Maker, parent: int) -> None:
    global _maker
    _maker = maker
    end_with(parent)


def end_with(parent: int) -> None:
    """In a worker: end when the process `parent` does, however that ends, and leave Ctrl-C to it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _make(number: int, items: list[Item]) -> dict[str, Any]:
    assert _maker is not None
    return make_shard(_maker, number, items)
