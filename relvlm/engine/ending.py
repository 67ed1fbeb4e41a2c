"""How a run has ended, for those who look at its folder: `ending.json`, which is not there while it runs.

A run that was killed leaves none; that its lease is held by nobody then tells.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from relvlm.stopping import Stopped
from relvlm.storage import write_whole

ENDING = "ending.json"


@dataclass(frozen=True)
class Ending:
    """`stopped`: it was told to end, and has saved. `reason` is empty for a run that is done."""

    how: Literal["ended", "stopped", "failed"]
    reason: str
    at: str


def note_ending(out: Path, error: BaseException | None) -> None:
    """Write it, where the disk lets us; `error` is what the run ends with.

    A start that is refused before the run goes on (`clear_ending`) leaves a run that is done as it is.
    """
    earlier = read_ending(out)
    if error is not None and earlier and earlier.how == "ended":
        return
    lines = str(error).strip().splitlines() if error else [""]
    how: Literal["ended", "stopped", "failed"] = "ended" if error is None else "failed"
    if isinstance(error, Stopped):
        how = "stopped"
    elif error is not None:
        lines = [f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__]
    now = datetime.now().astimezone().isoformat(" ", "seconds")
    with contextlib.suppress(OSError):
        write_whole(out / ENDING, json.dumps(asdict(Ending(how, lines[0], now)), indent=1))


def clear_ending(out: Path) -> None:
    """The run goes on."""
    (out / ENDING).unlink(missing_ok=True)


def read_ending(out: Path) -> Ending | None:
    """None where there is none, or none that can be read."""
    try:
        return Ending(**json.loads((out / ENDING).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None
