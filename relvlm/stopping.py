"""How a run ends that is told to: the signals, the exit status that has its job requeued, and the word for it.

Apart from relvlm/engine/signals.py, so that a process can be told before it has imported torch.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

REQUEUE = 200  # what slurm/launch.sh requeues; above the 128 + n of a process that a signal has killed
TROUBLE = 4  # a hang, or a rank that is lost, where the same job would meet it again
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


class Stopped(Exception):
    """A run that was told to end, and has saved what it had."""

    def __init__(self, reason: str, checkpoint: Path) -> None:
        super().__init__(f"{reason}: saved {checkpoint}; the same command goes on from there")


def end_at_once() -> None:
    """Before the first step there is nothing to save: a signal ends this process with the status that requeues."""
    for number in SIGNALS:
        signal.signal(number, lambda *_: os._exit(REQUEUE))


def ask_for_requeue(environment: Mapping[str, str]) -> None:
    """Of the job that slurm/launch.sh names, if any; ends this process, too. For a run some of whose ranks are gone."""
    job = environment.get("RELVLM_REQUEUE")
    if job:
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            subprocess.run(["scontrol", "requeue", job], timeout=60, check=False)


def leave(status: int | None) -> NoReturn:
    """End this process with that status. One of several ends at once, when all is said and written: while Python takes
    itself down, threads of gloo abort one in a hundred.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        sys.exit(status)
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status or 0)


def end_undisturbed() -> None:
    """All is saved: the ranks end one after the other, and srun's SIGTERM after the first is for the others no news."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
