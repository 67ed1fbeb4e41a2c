"""Slurm's jobs of a run: they carry its folder as a comment, by which they are found again."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from relvlm.errors import UserError

COLUMNS = {"job": "%i", "state": "%T", "elapsed": "%M", "limit": "%l", "nodes": "%D", "where or why": "%R"}
TIMEOUT_S = 60


def mark(out: Path) -> str:
    """The comment of the jobs that train into `out`."""
    return f"relvlm {out.absolute()}"


def lines(out: Path) -> list[str]:
    """A table of the user's jobs that train into `out`: waiting, running, and those that Slurm remembers."""
    rows = [row for row in (line.split("|", len(COLUMNS)) for line in _queue()) if row[-1] == mark(out)]
    if not rows:
        return [f"no job of {out} in the queue"]
    cells = [[*COLUMNS], *(row[:-1] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]


def _queue() -> list[str]:
    """One line a job and task, its comment last, which alone may hold a bar."""
    if not shutil.which("squeue"):
        raise UserError("relvlm submit --status: no squeue on PATH (ask on a login node of a Slurm cluster)")
    wanted = "|".join([*COLUMNS.values(), "%k"])
    command = ["squeue", "--me", "--array", "--noheader", "--states=all", "--sort=i", f"--format={wanted}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=TIMEOUT_S)
    except subprocess.CalledProcessError as error:
        raise UserError(f"squeue: {error.stderr.strip() or error}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f"squeue: {error}") from error
    return done.stdout.splitlines()
