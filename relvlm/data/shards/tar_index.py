"""Where the samples of a webdataset tar lie, and positioned reads of them; nothing is ever extracted."""

from __future__ import annotations

import errno
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

IMAGE_SUFFIXES = ("jpg", "jpeg", "png")


class PositionedFile:
    """A read-only descriptor; positioned reads share no offset, so forks and threads may share it."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def read(self, offset: int, size: int) -> bytes:
        data = os.pread(self._descriptor, size, offset)
        if len(data) != size:
            raise OSError(f"{len(data)} bytes of {size} at offset {offset}")
        return data

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)


@dataclass(frozen=True)
class Members:
    """Where a tar's samples lie.

    `table` (n, 4) int64, in bytes: image offset, image size, JSON offset, JSON size; -1 where absent. The members of
    a key may be apart; `repeated` are the keys with more than one image or JSON, of which the last are in the table.
    """

    keys: tuple[str, ...]
    table: np.ndarray
    repeated: frozenset[str] = frozenset()

    def places(self, position: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """((offset, size) of the image, (offset, size) of the JSON)."""
        a, b, c, d = (int(v) for v in self.table[position])
        return (a, b), (c, d)


def scan_members(path: Path) -> Members:
    """Index of a tar by its headers alone; a damaged header costs its own member, not those behind it."""
    total = path.stat().st_size
    rows: dict[str, list[int]] = {}
    repeated = set()
    for member in headers(path):
        folder, slash, base = member.name.rpartition("/")
        key, _, suffix = base.partition(".")
        column = 0 if suffix in IMAGE_SUFFIXES else 2 if suffix == "json" else None
        if column is None or member.offset_data + member.size > total:
            continue
        name = folder + slash + key
        row = rows.setdefault(name, [-1, -1, -1, -1])
        if row[column] >= 0:
            repeated.add(name)
        row[column : column + 2] = (member.offset_data, member.size)
    table = np.array(list(rows.values()), dtype=np.int64).reshape(-1, 4)
    return Members(tuple(rows), table, frozenset(repeated))


def headers(path: Path) -> Iterator[tarfile.TarInfo]:
    """Plain files of a tar; `ignore_zeros` makes tarfile look for the next header after a damaged one."""
    try:
        with tarfile.open(path, "r:", ignore_zeros=True) as tar:
            for member in tar:
                if member.type in (tarfile.REGTYPE, tarfile.AREGTYPE):
                    yield member
    except (tarfile.TarError, OverflowError):
        return  # what was found before stands; the rest is missing, which `read` reports sample by sample
    except OSError as error:
        if error.errno != errno.EINVAL:  # EINVAL: a header that sends the reader beyond any file
            raise
