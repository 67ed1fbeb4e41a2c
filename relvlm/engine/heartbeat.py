"""Signs of life: a small file of each rank in the run's folder, which the others read where something is wrong.

`out/heartbeats/NUMBER/rank_00003.json` is written anew each second, in place, for which a full disk has room. NUMBER is
the lease's (lease.py): a process of an earlier start finds its folder gone. Whether a rank lives is told from its
beats, not from a time: hosts' clocks differ.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from relvlm import storage
from relvlm.engine.process import Process, is_alive

SIZE = 4096  # bytes of a file, the rest of which is blank
ENDED = "ended"  # the phase of a rank that has ended as it should
LONGEST = 300  # characters of what a rank says


@dataclass(frozen=True)
class Sign:
    """What a rank last said of itself. `waited_s`: how long it has been in this part of the run (start, step, save).

    `workers`: what is wrong with its loader's, where it waits for them. `failure`: of what it ended. `at`: the time of
    the file, in the file system's seconds.
    """

    rank: int
    process: Process
    beat: int = 0
    step: int = 0
    phase: str = "start"
    waited_s: float = 0.0
    workers: str = ""
    failure: str = ""
    at: float = 0.0


def begin(out: Path, number: str) -> str:
    """Make the folder of a start, remove those of earlier ones, and return its number; rank 0 alone."""
    with storage.writing(out, "out"):
        for old in (out / "heartbeats").glob("*"):
            shutil.rmtree(old, ignore_errors=True)
        (out / "heartbeats" / number).mkdir(parents=True)
    return number


class Heartbeats:
    """The files of all ranks of one start of a run."""

    def __init__(self, out: Path, number: str) -> None:
        self.folder = out / "heartbeats" / number
        self.alert = self.folder / "alert"

    def first(self, sign: Sign) -> None:
        """Make a rank's file. Raises DiskError."""
        with storage.writing(self.folder, "out"):
            self.path(sign.rank).touch()
            self.write(sign)

    def write(self, sign: Sign) -> None:
        """Say it. Raises FileNotFoundError where a later start has the folder, OSError where the disk fails."""
        short = replace(sign, workers=sign.workers[:LONGEST], failure=sign.failure[:LONGEST])
        with self.path(sign.rank).open("r+b", buffering=0) as file:
            file.write(json.dumps(asdict(short)).encode().ljust(SIZE))

    def read(self, rank: int) -> Sign | None:
        """None where the rank has said nothing, or is just saying it."""
        try:
            with self.path(rank).open("rb") as file:  # NFS asks the server at an open
                found = json.loads(file.read())
                at = os.fstat(file.fileno()).st_mtime
            return Sign(**found | {"process": Process(**found["process"]), "at": at})
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def claim(self, rank: int) -> bool:
        """Whether this rank is the first to see trouble, and so the one that looks for its cause."""
        with contextlib.suppress(OSError):
            with self.alert.open("x") as file:
                file.write(f"rank {rank}\n")
            return True
        return not self.alert.exists()  # a disk that fails: better two causes than none

    def path(self, rank: int) -> Path:
        """A rank's file."""
        return self.folder / f"rank_{rank:05d}.json"


class Neighbours:
    """The ranks before and after one: where they are on its host, it is known at once that they have died.

    NCCL, unlike gloo, does not tell of it, and Slurm soon ends those that are left.
    """

    def __init__(self, heartbeats: Heartbeats, rank: int, world_size: int) -> None:
        self._heartbeats = heartbeats
        self._ranks = {(rank - 1) % world_size, (rank + 1) % world_size} - {rank}
        self._known: dict[int, Process] = {}

    def one_died(self) -> bool:
        """Whether one is gone without a word of its own."""
        for each in self._ranks:
            if each not in self._known:
                sign = self._heartbeats.read(each)
                self._known |= {each: sign.process} if sign else {}
            elif is_alive(self._known[each]) is False:
                sign = self._heartbeats.read(each)
                return sign is not None and sign.phase != ENDED and not sign.failure
        return False
