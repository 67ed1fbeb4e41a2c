"""How far a build is: a line with rate and time left, in a file and on a terminal."""

from __future__ import annotations

import sys
import time
from datetime import timedelta
from pathlib import Path

EVERY = 10.0  # seconds between two lines of the file


class Meter:
    """How much of a source's input has been read, in whatever unit the source counts."""

    def __init__(self) -> None:
        self.total, self.done = 0, 0

    @property
    def share(self) -> float:
        """From 0 to 1; 0 where the source does not tell."""
        return min(1.0, self.done / self.total) if self.total else 0.0


class Progress:
    """Writes a line to `log` every ten seconds, and to standard error where that is a terminal."""

    def __init__(self, log: Path, what: str, meter: Meter) -> None:
        self._log, self._what, self._meter = log, what, meter
        self._start = self._last = time.monotonic()
        self._done = self._made = 0

    def add(self, images: int, *, made_before: bool) -> None:
        """Count the images of a shard, which an earlier run may have made."""
        self._done += images
        self._made += 0 if made_before else images
        if time.monotonic() - self._last >= EVERY:
            self._say(self.line())

    def close(self) -> None:
        """The last line."""
        self._say(self.line() + "\n")

    def line(self) -> str:
        """`coco: 52000 images, 812/s, 43% read, 0:01:25 left`."""
        spent = max(time.monotonic() - self._start, 1e-9)
        share = self._meter.share
        left = f", {share:.0%} read, {timedelta(seconds=round(spent * (1 - share) / share))} left" if share else ""
        return f"{self._what}: {self._done} images, {self._made / spent:.0f}/s{left}"

    def _say(self, line: str) -> None:
        self._last = time.monotonic()
        with self._log.open("a", encoding="utf-8") as stream:
            stream.write(line.rstrip("\n") + "\n")
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{line}")
