"""Files that must be whole: on the disk before anything relies on them, known by their hash, and room for them."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from relvlm.errors import UserError

# What torch and safetensors say of a file that cannot be written; they raise no OSError.
_WRITERS = ("PytorchStreamWriter", "iostream error", "unexpected pos", "os error ")


class DiskError(UserError, OSError):
    """A file that cannot be written; the message names path, reason and room."""


@contextlib.contextmanager
def writing(path: Path, field: str = "", needed: int = 0) -> Iterator[None]:
    """Turn a failure to write within `path` into a DiskError; `needed` are the bytes that it takes, if known."""
    try:
        yield
    except DiskError:
        raise
    except Exception as error:
        if not isinstance(error, OSError) and not any(words in str(error) for words in _WRITERS):
            raise
        raise disk_error(path, error, field, needed) from error


def disk_error(path: Path, error: Exception, field: str = "", needed: int = 0) -> DiskError:
    """The error of one line for a file or folder that cannot be written."""
    reason = str(error).splitlines()[0]
    room = f"needs about {gigabytes(needed)}, " if needed else ""
    with contextlib.suppress(OSError):
        room += f"{gigabytes(shutil.disk_usage(existing(path)).free)} free there; "
    where = f"{field}: {path}" if field else str(path)
    return DiskError(f"{where}: cannot be written: {reason} ({room}make room, or set another `out`)")


def existing(path: Path) -> Path:
    """The path itself, or the nearest folder above it that is there."""
    return next((place for place in (path, *path.absolute().parents) if place.exists()), Path("/"))


def check_folder(path: Path, field: str) -> None:
    """Raise UserError where `path` cannot be, or become, a folder that is written to; makes nothing."""
    place = existing(path)
    if not place.is_dir():
        raise UserError(f"{field}: {path}: {place} is a file (set another folder)")
    if not os.access(place, os.W_OK | os.X_OK):
        raise UserError(f"{field}: {path}: {place} cannot be written (set another folder)")


def gigabytes(count: int) -> str:
    """`1.25 GB`, or in MB what is less than one."""
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def size(folder: Path) -> int:
    """Bytes of all files in it."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def files_below(folder: Path) -> list[Path]:
    """All files in it and its folders, sorted; also those of linked folders, which Path.rglob passes over.

    A link to a folder that it lies in leads nowhere. UserError for a folder that cannot be read.
    """
    return sorted(_below(folder, frozenset()))


def _below(folder: Path, around: frozenset[str]) -> Iterator[Path]:
    real = os.path.realpath(folder)
    try:
        within = [] if real in around else list(folder.iterdir())
    except OSError as error:
        raise UserError(f"{folder}: cannot be read: {error.strerror}") from error
    for path in within:
        if path.is_dir():
            yield from _below(path, around | {real})
        elif path.is_file():
            yield path


def sync(top: Path) -> None:
    """fsync a file, or every file of a folder and then the folder, so that a rename cannot outrun the data."""
    for path in [*top.rglob("*"), top]:
        sync_one(path)


def sync_one(path: Path) -> None:
    """fsync one file or folder (of a folder: the names in it)."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(path: Path, text: str) -> None:
    """Write a small file so that it is the old one or the new one, whatever happens."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text)
    sync_one(temporary)
    temporary.replace(path)
    sync_one(path.parent)


def sha256(path: Path) -> str:
    """Of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
