"""Photos and texts as a user names them on the command line."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from relvlm import storage
from relvlm.errors import UserError
from relvlm.evals.files import decoded

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png")


def photos_of(given: Sequence[Path]) -> list[Path]:
    """The photos of folders (all below them, sorted), of files, and of list files (one path a line), each once.

    UserError for what is not there, and where nothing is left.
    """
    found = dict.fromkeys(photo for path in given for photo in _photos(path))
    if not found:
        raise UserError(f"{given[0] if given else 'IMAGES'}: no photo in it ({', '.join(PHOTO_SUFFIXES)})")
    return list(found)


def texts_of(given: str) -> list[str]:
    """The lines of a file, or of standard input where `given` is `-`; blank ones are left out. UserError for none."""
    if given == "-":
        lines = sys.stdin.read().split("\n")
    else:
        path = Path(given)
        if not path.is_file():
            raise UserError(f"TEXTS: {path}: no such file (one text a line, or - for standard input)")
        lines = decoded(path.read_bytes(), str(path)).split("\n")
    texts = [line.strip() for line in lines if line.strip()]
    if not texts:
        raise UserError(f"TEXTS: {given}: no text in it (one a line)")
    return texts


def _photos(path: Path) -> list[Path]:
    if path.is_dir():
        return [file for file in storage.files_below(path) if _is_photo(file)]
    if not path.is_file():
        raise UserError(f"{path}: no such photo, folder or list of photos")
    if _is_photo(path):
        return [path]
    listed = [Path(line.strip()) for line in decoded(path.read_bytes(), str(path)).split("\n") if line.strip()]
    absent = next((photo for photo in listed if not photo.is_file()), None)
    if absent is not None:
        raise UserError(f"{path}: {absent}: no such photo (paths are relative to where the command runs)")
    return listed


def _is_photo(path: Path) -> bool:
    return path.suffix.lower() in PHOTO_SUFFIXES and not path.name.startswith(".")
