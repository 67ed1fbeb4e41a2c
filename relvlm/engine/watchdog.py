"""A thread of each rank that ends a run which gets no further, and says why: one line, and all stacks on the disk.

The main thread says what part of the run it begins, and which phase of it; the thread counts how long that takes and
writes it beside the other ranks' (heartbeat.py). Where a deadline is missed, or a connection lost, every live rank
writes its Python stacks, the first one looks for the cause (verdict.py), prints it and ends; the others follow. A
process that stands still and is let go on (a suspended job) is not late: what counts is the thread's own beats.
"""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import multiprocessing
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import NoReturn

import torch.distributed as dist

from relvlm import checkpoints, storage
from relvlm.config.trouble import DeadlinesConfig
from relvlm.engine import process
from relvlm.engine.heartbeat import ENDED, Heartbeats, Neighbours, Sign
from relvlm.engine.verdict import cause_of, listing
from relvlm.errors import UserError
from relvlm.ranks import rank, world_size
from relvlm.stopping import REQUEUE, TROUBLE, Stopped, ask_for_requeue, end_undisturbed

CAUSE = "cause.txt"
BEAT_S = 1.0
LOOK_S = 3.5  # a rank that is there beats in this time
FOLLOW_S = 30.0  # for the rank that looks for the cause
SLOWER = 5.0  # a step may take so many times as long as the longest so far
LOST = re.compile(r"gloo|nccl|processgroup|connection|broken pipe|socket", re.IGNORECASE)
log = logging.getLogger(__name__)


@contextlib.contextmanager
def meeting(deadline: float) -> Iterator[None]:
    """End this process where the ranks have not found each other by then; no folder is theirs yet to write into."""
    timer = threading.Timer(deadline, _give_up_meeting, (deadline,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _give_up_meeting(deadline: float) -> None:
    who = f"rank {os.environ.get('RANK', '0')} of {os.environ.get('WORLD_SIZE', '1')}"
    print(f"error: {who} has not met the others for {deadline:.0f} s (deadlines.start): one has died, or cannot be "
          "reached (MASTER_ADDR, MASTER_PORT)", file=sys.stderr, flush=True)  # fmt: skip
    os._exit(TROUBLE)


class Watchdog:
    """From `with` on: `begin` says which part begins and how long it may take, `phase` where it is.

    An error that comes out of `with` is told to the other ranks; where it is that of a lost connection, the process
    ends with the cause of the loss instead.
    """

    def __init__(self, out: Path, number: str, deadlines: DeadlinesConfig) -> None:
        self.out, self.deadlines = out, deadlines
        self.heartbeats = Heartbeats(out, number)
        self.stacks = out / "trouble" / number
        self.phase, self.step = "start", 0
        self.look_at_workers: Callable[[float], str] | None = None
        self._limit, self._longest = deadlines.start, 0.0
        self._began: float | None = None  # of the step, where one goes on
        self._parts = 0  # begun so far
        self._sign = Sign(rank(), process.own())
        self._error = ""
        self._wake, self._ended = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def __enter__(self) -> Watchdog:
        self.heartbeats.first(self._sign)
        self._thread.start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: TracebackType | None) -> None:
        if world_size() > 1 and error is not None and is_lost_connection(error):
            end_undisturbed()  # srun's SIGTERM after the loss of a rank must not outrun its cause
            self._error = _in_words(error)
            self._wake.set()
            self._thread.join()  # which ends this process
        self._ended.set()
        self._wake.set()
        self._thread.join()
        failure = "" if error is None or isinstance(error, Stopped) else _in_words(error)
        with contextlib.suppress(OSError):
            self._say(ENDED if not failure else self.phase, failure)

    def begin(self, deadline: float, step: int) -> None:
        """A part of the run that may take `deadline` seconds from now on."""
        self._limit, self.step, self._began = deadline, step, None
        self._parts += 1

    def begin_step(self, step: int, first: int) -> None:
        """The same for a step, of which `first` is the first one; later ones may take SLOWER times the longest."""
        now = time.monotonic()
        if self._began is not None and step > first + 1:
            self._longest = max(self._longest, now - self._began)
        limit = max(self.deadlines.step, SLOWER * self._longest)
        self.begin(self.deadlines.first_step if step == first else limit, step)
        self._began = now

    def at(self, phase: str) -> None:
        """One of verdict.PHASES begins."""
        self.phase = phase

    def _run(self) -> None:
        part, waited, last = self._parts, 0.0, time.monotonic()
        neighbours = Neighbours(self.heartbeats, self._sign.rank, world_size())
        while not self._ended.is_set():
            self._wake.wait(BEAT_S)
            now = time.monotonic()
            waited = waited + min(now - last, 2 * BEAT_S) if part == self._parts else 0.0
            part, last = self._parts, now
            self._beat(waited)
            trouble = self._error or waited > self._limit or self.heartbeats.alert.exists() or neighbours.one_died()
            if trouble and not self._ended.is_set():
                self._end()

    def _beat(self, waited: float) -> None:
        workers = self.look_at_workers(time.monotonic()) if self.look_at_workers else ""
        self._sign = Sign(
            self._sign.rank, self._sign.process, self._sign.beat, self.step, self.phase, round(waited, 1),
            workers if self.phase == "data" else "",
        )  # fmt: skip
        try:
            self._say(self.phase)
        except FileNotFoundError:
            log.critical("%s: another run has started there since; this one ends", self.out)
            os._exit(TROUBLE)
        except OSError:  # of a disk that will come back, or the others will see no beat
            pass

    def _say(self, phase: str, failure: str = "") -> None:
        said = self._sign
        self._sign = Sign(
            said.rank, said.process, said.beat + 1, self.step, phase, said.waited_s, said.workers, failure
        )
        self.heartbeats.write(self._sign)

    def _end(self) -> NoReturn:
        """Every rank comes here, the first one to find the cause."""
        first = self.heartbeats.claim(self._sign.rank)
        with contextlib.suppress(OSError):
            self._dump_stacks()
        status = self._find_cause() if first else self._follow()
        for worker in multiprocessing.active_children():  # one that is stopped would outlive its rank
            worker.kill()
        sys.stderr.flush()
        os._exit(status)

    def _find_cause(self) -> int:
        ranks = range(world_size())
        before = [self.heartbeats.read(each) for each in ranks]
        self._beat_for(LOOK_S)
        after = [self.heartbeats.read(each) for each in ranks]
        found = cause_of(before, after, self._error)
        status = REQUEUE if found.again and may_requeue(self.out) else TROUBLE
        line = f"error: {found.text}; stacks in {self.stacks}"
        with contextlib.suppress(OSError):
            now = f"{datetime.now().astimezone():%F %T %z}"
            storage.write_whole(self.stacks / CAUSE, f"{now} {line}\n{listing(after)}\n")
        os.write(sys.stderr.fileno(), f"\n{line}\n".encode())  # the progress bar leaves its line open
        if status == REQUEUE:
            ask_for_requeue(os.environ)
        return status

    def _follow(self) -> int:
        """Be seen to live until the cause is found."""
        deadline = time.monotonic() + FOLLOW_S
        while not (self.stacks / CAUSE).exists() and time.monotonic() < deadline:
            self._beat_for(BEAT_S / 4)
        return TROUBLE

    def _beat_for(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                self._say(self.phase)
            time.sleep(min(seconds, BEAT_S / 2))

    def _dump_stacks(self) -> None:
        self.stacks.mkdir(parents=True, exist_ok=True)
        with (self.stacks / f"rank_{self._sign.rank:05d}.txt").open("w") as file:
            file.write(f"rank {self._sign.rank}, pid {os.getpid()}, step {self.step} ({self.phase})\n")
            file.flush()
            faulthandler.dump_traceback(file, all_threads=True)


def is_lost_connection(error: BaseException) -> bool:
    """Whether torch says that another process does not answer (gloo by a bare RuntimeError)."""
    if isinstance(error, UserError) or not isinstance(error, RuntimeError):
        return False
    return isinstance(error, dist.DistError) or LOST.search(str(error)) is not None


def _in_words(error: BaseException) -> str:
    """One line."""
    return f"{type(error).__name__}: {error}".splitlines()[0]


def may_requeue(out: Path) -> bool:
    """Whether the run has saved something since it was last requeued for trouble: a fault that stays must end it."""
    path, saved = out / "trouble" / "requeued", checkpoints.saved(out / "checkpoints")
    newest = saved[-1].name if saved else "none"
    with contextlib.suppress(OSError):
        path.parent.mkdir(exist_ok=True)
        if path.exists() and path.read_text() == newest:
            return False
        path.write_text(newest)
        return True
    return False
