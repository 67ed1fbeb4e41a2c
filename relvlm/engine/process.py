"""Processes as other processes know them: by host, boot, namespace, pid and start, for pids come again."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")


@dataclass(frozen=True)
class Process:
    """`where` tells hosts and containers apart that have the same name; `started` two lives of one pid."""

    host: str
    where: str
    pid: int
    started: str


def own() -> Process:
    """This process."""
    return Process(socket.gethostname(), _where(), os.getpid(), _start_of(os.getpid()) or "")


def is_alive(process: Process) -> bool | None:
    """None where it is of another host or container, of which nothing is known here."""
    if (process.host, process.where) != (socket.gethostname(), _where()):
        return None
    return _start_of(process.pid) == process.started


def _where() -> str:
    """Boot and pid namespace; empty where the system has no /proc."""
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink(_PROC / 'self/ns/pid')}"
    except OSError:
        return ""


def _start_of(pid: int) -> str | None:
    """When a process started, in clock ticks since the boot; None for one that has ended (a zombie, too)."""
    if not (_PROC / "self/stat").exists():
        return _without_proc(pid)
    try:
        state, *numbers = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return None
    return None if state in "ZX" else numbers[18]


def _without_proc(pid: int) -> str | None:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return ""
