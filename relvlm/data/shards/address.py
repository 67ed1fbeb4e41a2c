"""Where a shard set lies: a folder, or an address (`s3://`, `gs://`, `hf://`, `https://`, ...), read through fsspec."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, BinaryIO

from relvlm.errors import UserError

_ADDRESS = re.compile(r"[a-z][a-z0-9+]*://|pipe:")
CHUNK = 1 << 24  # bytes of one read


class Address(str):
    """An address, with as much of a Path as names of files in a folder need."""

    __slots__ = ()

    def __truediv__(self, name: str) -> Address:
        return Address(f"{self.rstrip('/')}/{name}")

    @property
    def name(self) -> str:
        return self.rstrip("/").rpartition("/")[2]


Place = Path | Address


def place_of(text: str) -> Place:
    """What a user means by `text`; raises UserError for an address from which no record can be fetched at random."""
    if not _ADDRESS.match(text):
        return Path(text)
    if text.startswith("pipe:"):
        raise UserError(
            f"{text}: a command's output comes once and in its own order, but a run reads the records that (seed, "
            "step) say, and resumes at any of them (copy the set to a folder or an object store, and name that)"
        )
    return Address(text)


def open_address(address: Address) -> BinaryIO:
    """A stream of its bytes. Raises UserError where a package is missing, and whatever the store's own raises."""
    try:
        import fsspec
    except ImportError as error:
        raise _missing(address, "fsspec") from error
    try:
        system, path = fsspec.core.url_to_fs(str(address))
    except ImportError as error:  # says which package
        raise _missing(address, str(error)) from error
    except ValueError as error:
        raise UserError(f"{address}: {error}") from error
    options: dict[str, Any] = {"block_size": CHUNK, "cache_type": "readahead"}
    stream: BinaryIO = system.open(path, "rb", **options)
    return stream


def _missing(address: Address, what: str) -> UserError:
    return UserError(f"{address}: a package is missing: {what} (pip install 'relvlm[remote]')")
