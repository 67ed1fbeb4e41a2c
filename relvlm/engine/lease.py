"""Who trains into a folder: one run at a time, also where several hosts share the file system.

`out/lease/` holds a numbered file of who took the folder; the highest number counts. A number is created once and
never again (O_EXCL, which NFS keeps, too), so of several that follow a dead run one wins. The holder sets its file's
time every second. Whether it lives is told from that time's changing, not from its age: hosts' clocks differ.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TextIO

from relvlm.engine import process
from relvlm.errors import UserError
from relvlm.storage import writing

BEAT_S = 1.0
LOOK_S = 3.0  # a holder that is there beats in this time
STALE_S = 30.0  # one that has not beaten in this time has lost the folder
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Holder:
    """The process of rank 0, and the Slurm job that it is of (`restarts` times requeued before)."""

    process: process.Process
    job: str | None
    restarts: int
    since: str

    @classmethod
    def own(cls, environment: Mapping[str, str]) -> Holder:
        """Of this process, from now on."""
        restarts = int(environment.get("SLURM_RESTART_COUNT", "0") or 0)
        since = datetime.now().astimezone().isoformat(" ", "seconds")
        return cls(process.own(), environment.get("SLURM_JOB_ID"), restarts, since)

    def __str__(self) -> str:
        job = f"Slurm job {self.job}, " if self.job else ""
        return f"a run on {self.process.host}: {job}pid {self.process.pid}, since {self.since}"


def read_holder(path: Path) -> Holder | None:
    """None where the file is torn, or not written yet."""
    try:
        found = json.loads(path.read_bytes())
        return Holder(**found | {"process": process.Process(**found["process"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None


@dataclass(frozen=True)
class Entry:
    """A numbered file, and what of it changes while its holder lives."""

    number: int
    path: Path
    beat: int

    @property
    def released(self) -> bool:
        """Whether its run has ended by itself."""
        return self.path.suffix == ".released"


def newest(folder: Path) -> Entry | None:
    """The file that counts; None where nobody has ever held the folder."""
    paths = [path for path in folder.glob("[0-9]*.*") if path.stem.isdigit()]
    for path in sorted(paths, key=lambda path: (int(path.stem), path.suffix == ".json"), reverse=True):
        with contextlib.suppress(FileNotFoundError), path.open("rb") as file:  # NFS asks the server at an open
            return Entry(int(path.stem), path, os.fstat(file.fileno()).st_mtime_ns)
    return None


def refuse_if_held(out: Path) -> None:
    """Raise UserError where a run is seen to train into `out`; takes no longer than LOOK_S, and imports no torch."""
    _refuse(out, LOOK_S)


def _refuse(out: Path, patience_s: float) -> Entry | None:
    """The file that counts, whose holder is gone or gives no sign for `patience_s`; UserError where it is there."""
    folder, began = out / "lease", time.monotonic()
    first = newest(folder)
    if first is None or first.released:
        return first
    told = False
    while True:
        seen = newest(folder)
        holder = read_holder(seen.path) if seen else None
        if holder and _is_gone(holder, os.environ):
            return seen
        if seen != first or (holder and process.is_alive(holder.process)):
            if seen is None or seen.released:
                return seen
            raise UserError(f"out: {out} is in use by {holder or 'a run'} (take another `out`, or end that run)")
        if time.monotonic() > began + patience_s:
            return seen
        if not told and time.monotonic() > began + LOOK_S:
            told = True
            log.info("%s: no sign of %s; watching it for %.0f s", out, holder or "its run", patience_s)
        time.sleep(min(BEAT_S / 2, patience_s / 4))


def _is_gone(holder: Holder, environment: Mapping[str, str]) -> bool:
    """Known to be: it ran on this host, or Slurm has started its job again, which it does after its end."""
    own = Holder.own(environment)
    requeued = holder.job is not None and holder.job == own.job and holder.restarts < own.restarts
    return requeued or process.is_alive(holder.process) is False


class Lease:
    """Held from `take` to `release`, or to the death of this process."""

    def __init__(self, out: Path) -> None:
        self.out, self.folder = out, out / "lease"
        self.path: Path | None = None
        self._ended = threading.Event()

    def take(self) -> None:
        """Wait until it is known whether another run holds the folder; raises UserError where one does."""
        while self.path is None:
            last = _refuse(self.out, STALE_S)
            if last and not last.released:
                log.warning("%s: taken over from %s, which is gone", self.out, read_holder(last.path) or "a run")
            self.path = self._create(last.number + 1 if last else 1)
        threading.Thread(target=self._beat, name="lease", daemon=True).start()

    @property
    def number(self) -> str:
        """Of this start of the run, which no other has; once it is taken."""
        assert self.path is not None
        return self.path.stem

    def release(self) -> None:
        """Let the next run have the folder at once; nothing where it was not taken."""
        self._ended.set()
        if self.path is not None:
            with contextlib.suppress(OSError):  # then it becomes stale
                self.path.rename(self.path.with_suffix(".released"))
            self.path = None

    def _create(self, number: int) -> Path | None:
        """The new file; None where somebody else was faster. Earlier ones are removed."""
        path = self.folder / f"{number:06d}.json"
        with writing(self.out, "out"):
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                file = path.open("x")
            except FileExistsError:
                return None
            _write(file, json.dumps(asdict(Holder.own(os.environ)), indent=1))
        top = newest(self.folder)
        if top is None or top.path != path:
            path.unlink(missing_ok=True)
            return None
        for old in self.folder.glob("[0-9]*.*"):
            if old.stem.isdigit() and int(old.stem) < number:
                old.unlink(missing_ok=True)
        return path

    def _beat(self) -> None:
        """The time alone changes, for which a full disk has room."""
        while not self._ended.wait(BEAT_S):
            try:
                with contextlib.suppress(FileNotFoundError):
                    os.utime(self.path or self.folder)
                top = newest(self.folder)
            except OSError:  # of a file system that will come back, or the others will see no beat
                continue
            if not self._ended.is_set() and (top is None or top.path != self.path):
                self._lost(top)

    def _lost(self, top: Entry | None) -> None:
        """This process has stood still for too long; whatever it wrote now would be mixed with the other's."""
        by = (read_holder(top.path) or "another run") if top else "someone who removed out/lease"
        log.critical("%s: was taken over by %s; this run ends", self.out, by)
        os._exit(3)


def _write(file: TextIO, text: str) -> None:
    """All of it, or no file."""
    try:
        with file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        Path(file.name).unlink()
        raise
