"""`relvlm train` in processes of their own: started as by a launcher, waited for, looked at."""

from __future__ import annotations

import csv
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from relvlm.engine.columns import CLOCKS

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


def start(
    arguments: list[str], ranks: int = 1, script: Path | None = None, cwd: Path = ROOT, **environment: str
) -> list[subprocess.Popen[str]]:
    """The ranks of a run, each with a pipe for what it says; `script` takes the place of `relvlm`."""
    command = [sys.executable, str(script)] if script else [sys.executable, "-m", "relvlm.cli"]
    port = str(free_port())
    return [
        subprocess.Popen(
            [*command, "train", *arguments], cwd=cwd, text=True, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
            env=ENVIRONMENT | environment | (launcher(rank, ranks, port) if ranks > 1 else {}),
        )
        for rank in range(ranks)
    ]  # fmt: skip


def launcher(rank: int, ranks: int, port: str) -> dict[str, str]:
    """What a launcher sets for one of several ranks."""
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(ranks)}
    return meeting | {"RANK": str(rank), "LOCAL_RANK": str(rank)}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def rows(out: Path) -> list[dict[str, str]]:
    """Of metrics.csv, without its clocks."""
    path = out / "metrics.csv"
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [{k: v for k, v in row.items() if k not in CLOCKS} for row in csv.DictReader(file)]


def wait_for_steps(out: Path, count: int, process: subprocess.Popen[str]) -> None:
    """Until so many rows are logged; AssertionError where the process ends before."""
    deadline = time.monotonic() + 300
    while process.poll() is None and time.monotonic() < deadline:
        if len(rows(out)) >= count:
            return
        time.sleep(0.02)
    raise AssertionError(f"no {count} steps: {process.communicate()[1][-2000:]}")
