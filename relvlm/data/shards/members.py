"""A record's members, read from a tar at the places that an index says; nothing is ever extracted."""

from __future__ import annotations

import os
from pathlib import Path

from relvlm.data.shards.index import BLOCK, Span

IMAGE_SUFFIXES = ("jpg", "jpeg", "png")
_NAME, _SIZE, _PREFIX = slice(0, 100), slice(124, 136), slice(345, 500)  # of a header


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


def read_members(file: PositionedFile, first: Span, second: Span) -> list[tuple[str, bytes]]:
    """(name, data) of both members, in one read where they are neighbours.

    The name is empty where there is no header of a member of that size.
    """
    start, end = min(first[0], second[0]) - BLOCK, max(sum(first), sum(second))
    if end - start > first[1] + second[1] + 3 * BLOCK:  # two headers, and what fills the first one's last block
        return [_member(file.read(offset - BLOCK, BLOCK + size), 0, size) for offset, size in (first, second)]
    span = file.read(start, end - start)
    return [_member(span, offset - BLOCK - start, size) for offset, size in (first, second)]


def _member(span: bytes, header: int, size: int) -> tuple[str, bytes]:
    data = header + BLOCK
    name, said = read_header(span[header:data])
    return name if said == size else "", span[data : data + size]


def read_header(header: bytes) -> tuple[str, int]:
    """The name and the size that a tar's header says (-1: none); longer ones stand elsewhere, as tarfile knows."""
    name = _text(header[_NAME])
    try:
        size = int(header[_SIZE].rstrip(b" \0"), 8)
    except ValueError:
        size = -1
    prefix = header[_PREFIX]
    return f"{_text(prefix)}/{name}" if any(prefix[:1]) else name, size


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def split_name(name: str) -> tuple[str, str]:
    """Key and suffix, as webdataset parts them: at the first dot behind the folder."""
    folder, slash, base = name.rpartition("/")
    key, _, suffix = base.partition(".")
    return folder + slash + key, suffix
