"""A walk through a tar's headers, for tars that no builder of this package has indexed."""

from __future__ import annotations

import errno
import os
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from relvlm.data.shards.index import BLOCK, NOTHING, ODD_HEADER, REPEATED, Span
from relvlm.data.shards.members import IMAGE_SUFFIXES, PositionedFile, read_header, split_name

LARGEST_END = 1 << 16  # bytes of zeros behind the last member
_PAX_TIMES = re.compile(rb"(?:\d+ [acm]time=[\d.]+\n)*")  # what webdataset's writer puts before each member


@dataclass
class Found:
    """A key's members, of those that it has twice the last; the members of a key may be apart."""

    key: str
    places: dict[str, Span] = field(default_factory=lambda: {"image": NOTHING, "json": NOTHING})
    marks: int = 0  # REPEATED, ODD_HEADER


def scan_members(path: Path) -> list[Found]:
    """A tar's records by its headers alone; a damaged header costs its own member, not those behind it."""
    total, file = path.stat().st_size, PositionedFile(path)
    records: dict[str, Found] = {}
    for member in headers(path):
        key, suffix = split_name(member.name)
        what = "image" if suffix in IMAGE_SUFFIXES else suffix
        if what not in ("image", "json") or member.offset_data + member.size > total:
            continue
        found = records.setdefault(key, Found(key))
        found.marks |= REPEATED * (found.places[what] != NOTHING)
        said = read_header(file.read(member.offset_data - BLOCK, BLOCK))
        found.marks |= ODD_HEADER * (said != (member.name, member.size))
        found.places[what] = (member.offset_data, member.size)
    return list(records.values())


class Member(NamedTuple):
    """A plain file in a tar."""

    name: str
    size: int
    offset_data: int


def headers(path: Path) -> Iterator[Member]:
    """Plain files of a tar. From the first header on that is no ordinary one tarfile reads it, ten times as slow."""
    reached = -1
    for member in _ordinary(path):
        if member is None:
            yield from (each for each in _by_tarfile(path) if each.offset_data > reached)
            return
        reached = member.offset_data
        yield member


def _ordinary(path: Path) -> Iterator[Member | None]:
    """Files with their name and size in their own header; None, at the end, where there is anything else."""
    with path.open("rb") as stream:
        descriptor, offset = stream.fileno(), 0
        while block := os.pread(descriptor, 3 * BLOCK, offset):
            if block[156:157] == tarfile.XHDTYPE:
                if not _says_times(block):
                    yield None
                    return
                block, offset = block[2 * BLOCK :], offset + 2 * BLOCK
            header = block[:BLOCK]
            if not any(header):
                rest = os.pread(descriptor, LARGEST_END, offset)
                if len(rest) == LARGEST_END or any(rest):
                    yield None  # tars one behind the other
                return
            name, size = read_header(header)
            plain = header[156:157] in (tarfile.REGTYPE, tarfile.AREGTYPE) and not name.endswith("/")
            if len(header) < BLOCK or size < 0 or not plain or not _is_sound(header):
                yield None
                return
            yield Member(name, size, offset + BLOCK)
            offset += BLOCK + -(-size // BLOCK) * BLOCK


def _says_times(block: bytes) -> bool:
    """Whether an extended header says times alone, and the header of its file stands behind it."""
    _, size = read_header(block[:BLOCK])
    return len(block) == 3 * BLOCK and 0 <= size <= BLOCK and bool(_PAX_TIMES.fullmatch(block[BLOCK : BLOCK + size]))


def _is_sound(header: bytes) -> bool:
    """Whether its checksum, which counts itself as spaces, is that of its bytes."""
    said = header[148:156]
    try:
        return int(said.rstrip(b" \0"), 8) == sum(header) - sum(said) + 8 * ord(" ")
    except ValueError:
        return False


def _by_tarfile(path: Path) -> Iterator[Member]:
    """`ignore_zeros` makes tarfile look for the next header after a damaged one."""
    try:
        with tarfile.open(path, "r:", ignore_zeros=True) as tar:
            for member in tar:
                if member.type in (tarfile.REGTYPE, tarfile.AREGTYPE):
                    yield Member(member.name, member.size, member.offset_data)
    except (tarfile.TarError, OverflowError):
        return  # what was found before stands; the rest is missing, which shows in the count
    except OSError as error:
        if error.errno != errno.EINVAL:  # EINVAL: a header that sends the reader beyond any file
            raise
