"""Checkpoints of a run, folders `step_0001000/`: each is whole or has another name; its manifest tells a damaged one.

`manifest.json` holds size and SHA-256 of every other file. It is written last, then the folder gets its name; `latest`
is a hint for people.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from relvlm import storage
from relvlm.errors import UserError

MANIFEST = "manifest.json"
LATEST = "latest"


def name_of(step: int) -> str:
    """The folder of that step."""
    return f"step_{step:07d}"


def step_of(checkpoint: Path) -> int:
    """The step of a folder that `saved` lists."""
    return int(checkpoint.name.removeprefix("step_"))


def saved(folder: Path) -> list[Path]:
    """Every checkpoint in `folder`, the oldest first."""
    return sorted(path for path in folder.glob("step_" + 7 * "[0-9]") if path.is_dir())


def file_record(path: Path) -> dict[str, Any]:
    """What the manifest says of a file."""
    return {"bytes": path.stat().st_size, "sha256": storage.sha256(path)}


def write_manifest(checkpoint: Path, files: dict[str, dict[str, Any]]) -> None:
    """Of the files with these records, by name; the last thing that is written into a checkpoint."""
    storage.write_whole(checkpoint / MANIFEST, _text(files))


def _text(files: dict[str, dict[str, Any]]) -> str:
    return json.dumps({"version": 1, "files": files}, indent=1)


def fault_of(checkpoint: Path) -> str | None:
    """The first file of a checkpoint that is not as it was written, and what is wrong with it (reads all), or None."""
    try:
        text = (checkpoint / MANIFEST).read_text()
        files = json.loads(text)["files"]
        if text != _text(files):
            raise ValueError("not as it was written")
        records = {name: (int(record["bytes"]), str(record["sha256"])) for name, record in files.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{checkpoint / MANIFEST}: not readable: {error}"
    return next(filter(None, (_fault(checkpoint / name, *record) for name, record in records.items())), None)


def newest_whole(folder: Path) -> tuple[Path | None, dict[Path, str]]:
    """The newest checkpoint whose manifest holds, and the newer ones with what is wrong with each (reads them all).

    None where there is none at all; UserError where all are damaged: a run must not begin anew over them.
    """
    faults: dict[Path, str] = {}
    for checkpoint in reversed(saved(folder)):
        fault = fault_of(checkpoint)
        if fault is None:
            return checkpoint, faults
        faults[checkpoint] = fault
    if faults:
        listed = "\n".join(faults.values())
        raise UserError(f"{folder}: no checkpoint is whole (set another `out`, or remove them):\n{listed}")
    return None, {}


def set_aside(checkpoint: Path) -> Path:
    """Give a damaged checkpoint a name under which nobody takes it for one; returns where it is."""
    aside = checkpoint.with_name(f"damaged_{checkpoint.name}")
    shutil.rmtree(aside, ignore_errors=True)
    return checkpoint.rename(aside)


def _fault(path: Path, size: int, sha256: str) -> str | None:
    try:
        found = path.stat().st_size
        if found != size:
            return f"{path}: has {found} bytes, {size} were written"
        if storage.sha256(path) != sha256:
            return f"{path}: damaged: its SHA-256 is not the manifest's"
    except OSError as error:
        return f"{path}: not readable: {error.strerror}"
    return None
