"""A run that a drill breaks: started, waited for, ended, put back; what has been wrong so far."""

from __future__ import annotations

import contextlib
import random
import shutil
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from relvlm import checkpoints
from support.launched import rows, start

DEADLINES = {"start": 120, "first_step": 120, "step": 10, "save": 60}
MOST_S = 2 * DEADLINES["start"]
EVERY = 40  # steps between checkpoints


@dataclass
class Drill:
    """A run in `out`: its command, and what has been found wrong so far."""

    out: Path
    command: list[str]
    ranks: int
    steps: int
    random: random.Random
    before: int = 0
    wrong: list[str] = field(default_factory=list)
    steps_lost: list[int] = field(default_factory=list)

    def begin(self, script: Path | None = None, **environment: str) -> list[subprocess.Popen[str]]:
        """The ranks, just started."""
        self.before = self.inode()
        return start([*self.command, f"out={self.out}"], self.ranks, script, **environment)

    def inode(self) -> int:
        """Of metrics.csv, which each start writes anew."""
        path = self.out / "metrics.csv"
        return path.stat().st_ino if path.exists() else 0

    def under_way(self, processes: list[subprocess.Popen[str]]) -> bool:
        """Wait for a random moment: within the start, or some steps on; whether the run still goes on."""
        if self.random.random() < 0.25:
            time.sleep(self.random.uniform(0, 8))
        else:
            self.wait_for_steps(self.random.randint(1, 60), processes)
        return all(process.poll() is None for process in processes)

    def wait_for_steps(self, more: int, processes: list[subprocess.Popen[str]], most_s: float = MOST_S) -> None:
        """Until this start has logged so many steps after the newest checkpoint that was there, or has ended."""
        until, limit = self.saved() + more, time.monotonic() + most_s
        while all(p.poll() is None for p in processes) and time.monotonic() < limit:
            if self.inode() != self.before and self.done() >= until:
                return
            time.sleep(0.02)

    def done(self) -> int:
        """Steps that are logged."""
        return len(rows(self.out))

    def saved(self) -> int:
        """The newest checkpoint's step."""
        found = checkpoints.saved(self.out / "checkpoints")
        return checkpoints.step_of(found[-1]) if found else 0

    def end(self, processes: list[subprocess.Popen[str]], name: str, most_s: float = MOST_S) -> tuple[list[int], str]:
        """Exit statuses, and all that was said; a rank that hangs is a fault of the run."""
        limit, texts = time.monotonic() + most_s, []
        for process in processes:
            try:
                texts.append(process.communicate(timeout=max(limit - time.monotonic(), 1))[1])
            except subprocess.TimeoutExpired:
                self.wrong.append(f"{name}: a rank was still there after {most_s:.0f} s")
                process.kill()
                texts.append(process.communicate()[1])
        statuses = [process.returncode for process in processes]
        ends = [
            f"{text}\n(rank {n} ended with {status})"
            for n, (text, status) in enumerate(zip(texts, statuses, strict=True))
        ]
        return statuses, "\n".join(ends)

    def finish(self, name: str) -> None:
        """Run all steps that are left: seconds for each, beside the start."""
        statuses, said = self.end(self.begin(), name, MOST_S + self.steps)
        self.expect(set(statuses) == {0}, name, said)

    def expect_no_step_lost(self, name: str, said: str) -> None:
        """After a start that was told to end: all that it has made is saved, if it came to make any."""
        if self.inode() != self.before:
            self.steps_lost.append(self.done() - self.saved())
            self.expect(self.steps_lost[-1] == 0, f"{name}: {self.steps_lost[-1]} steps lost", said)

    def expect(self, right: bool, name: str, said: str) -> None:
        """Remember what was not as it must be."""
        if not right:
            self.wrong.append(f"{name}: " + " | ".join(last_lines(said)))


def last_lines(said: str) -> list[str]:
    """A few of each rank."""
    lines = [line for line in said.splitlines() if line.strip()]
    ends = [place for place, line in enumerate(lines) if line.startswith("(rank ")]
    return [line for end in ends for line in lines[max(end - 4, 0) : end + 1]] or lines[-6:]


def has_one_line(said: str) -> bool:
    """Whether it says what was wrong, and no traceback is all that there is."""
    return any("error: " in line for line in said.splitlines())


def finished(drill: Drill) -> bool:
    """Whether the run has come to its end."""
    return (drill.out / "checkpoints" / checkpoints.name_of(drill.steps)).is_dir()


def kill_the_rest(drill: Drill, processes: list[subprocess.Popen[str]]) -> tuple[list[int], str]:
    """End a run whose part is over, the hard way."""
    for process in processes:
        process.kill()
    return drill.end(processes, "kill")


def go_back(drill: Drill, step: int) -> None:
    """Put the run back to a checkpoint: what came after was made of other data."""
    for path in checkpoints.saved(drill.out / "checkpoints"):
        if checkpoints.step_of(path) > step:
            shutil.rmtree(path)
    if not step:
        (drill.out / "metrics.csv").unlink(missing_ok=True)


def children(process: subprocess.Popen[str]) -> list[int]:
    """Its loader workers."""
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    listed = path.read_text().split() if path.exists() else []
    return [pid for pid in map(int, listed) if is_python(pid)]


def is_python(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return "relvlm" in Path(f"/proc/{pid}/cmdline").read_text()
    return False
