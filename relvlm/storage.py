"""Files that must be whole: on the disk before anything relies on them, and known by their hash."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path


def sync(top: Path) -> None:
    """fsync a file, or every file of a folder and then the folder, so that a rename cannot outrun the data."""
    for path in [*top.rglob("*"), top]:
        sync_one(path)


def sync_one(path: Path) -> None:
    """fsync one file or folder (of a folder: the names in it)."""
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def sha256(path: Path) -> str:
    """Of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
