"""A walk through a tar's headers, for tars that no builder of this package has indexed."""

from __future__ import annotations

import errno
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from relvlm.data.shards.index import BLOCK, NOTHING, ODD_HEADER, REPEATED, Span
from relvlm.data.shards.members import IMAGE_SUFFIXES, PositionedFile, read_header, split_name


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


def headers(path: Path) -> Iterator[tarfile.TarInfo]:
    """Plain files of a tar; `ignore_zeros` makes tarfile look for the next header after a damaged one."""
    try:
        with tarfile.open(path, "r:", ignore_zeros=True) as tar:
            for member in tar:
                if member.type in (tarfile.REGTYPE, tarfile.AREGTYPE):
                    yield member
    except (tarfile.TarError, OverflowError):
        return  # what was found before stands; the rest is missing, which shows in the count
    except OSError as error:
        if error.errno != errno.EINVAL:  # EINVAL: a header that sends the reader beyond any file
            raise
