"""Signs of life of loader workers: a row for each in memory that their rank shares with them."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator

import torch

BEAT_S = 1.0
SILENT_S = 5.0
PID, BEATS, STEP = range(3)


class WorkerSigns:
    """Rows (pid, beats, the step that is being read or -1): (workers, 3) int64."""

    def __init__(self, workers: int) -> None:
        self.rows = torch.zeros(workers, 3, dtype=torch.int64).share_memory_()
        self.rows[:, STEP] = -1

    def begin(self, worker: int) -> None:
        """In a worker that starts: a thread beats until its end."""
        self.rows[worker, PID] = os.getpid()
        threading.Thread(target=_beat, args=(self.rows[worker],), name="sign of life", daemon=True).start()

    @contextlib.contextmanager
    def reading(self, worker: int, step: int) -> Iterator[None]:
        """In a worker: within it reads a step."""
        self.rows[worker, STEP] = step
        yield
        self.rows[worker, STEP] = -1


def _beat(row: torch.Tensor) -> None:
    while True:
        row[BEATS] += 1
        time.sleep(BEAT_S)


class WorkerWatch:
    """What a rank sees of its workers; `look` once a second or so."""

    def __init__(self, signs: WorkerSigns) -> None:
        self._rows = signs.rows
        self._seen = [[-1, -1]] * len(signs.rows)  # beats and step of each
        self._since = [[0.0, 0.0]] * len(signs.rows)  # when they last changed

    def look(self, now: float) -> str:
        """Of a rank that waits for data: the worker that it may be waiting for, in words; empty where none is seen."""
        found: list[tuple[bool, float, str]] = []
        for worker, (pid, *state) in enumerate(self._rows.tolist()):
            kept = zip(state, self._seen[worker], self._since[worker], strict=True)
            self._since[worker] = [then if value == before else now for value, before, then in kept]
            self._seen[worker] = state
            silent, reading = (now - then for then in self._since[worker])
            name = f"loader worker {worker} (pid {pid})"
            if pid and silent > SILENT_S:
                found.append((True, silent, f"{name} has said nothing for {silent:.0f} s"))
            elif pid and state[1] >= 0:
                found.append((False, reading, f"{name} has been reading step {state[1] + 1} for {reading:.0f} s"))
        return max(found)[2] if found else ""
