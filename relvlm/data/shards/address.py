"""Where a shard set lies: a folder, or an address (`s3://`, `gs://`, `hf://`, `https://`, ...), read through fsspec.

A command's output is an address, too, where its text says `{}` for a file's name: `pipe:ssh host cat /data/coco/{}`.
`FOLDER::ADDRESS` is a set whose tars lie at an address and whose manifest and indexes in a folder.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from relvlm.data.shards.command import CommandOutput
from relvlm.errors import UserError

PIPE, HERE = "pipe:", "::"
_ADDRESS = re.compile(rf"[a-z][a-z0-9+]*://|{PIPE}")
_SPLIT = re.compile(rf"((?:(?!{HERE}|://).)+){HERE}(?=[a-z][a-z0-9+]*://|{PIPE})")
_BEFORE_NAME = re.compile(r"([^/\s'\"]*)['\"]?/?['\"]?\{\}")
CHUNK = 1 << 24  # bytes of one read


class Stream(Protocol):
    """Bytes in their order."""

    def read(self, size: int, /) -> bytes: ...

    def close(self) -> None: ...


class Address(str):
    """An address, with as much of a Path as names of files in a folder need."""

    __slots__ = ()

    def __truediv__(self, name: str) -> Address:
        if self.startswith(PIPE):
            return Address(self.replace("{}", shlex.quote(name)))
        return Address(f"{self.rstrip('/')}/{name}")

    @property
    def name(self) -> str:
        """The last folder's."""
        if self.startswith(PIPE):
            found = _BEFORE_NAME.search(self)
            return found[1] if found and found[1] else "pipe"
        return self.rstrip("/").rpartition("/")[2]


@dataclass(frozen=True)
class SplitPlace:
    """`FOLDER::ADDRESS`: tars at the address, all else in the folder."""

    folder: Path
    tars: Address

    def __truediv__(self, name: str) -> Path | Address:
        return self.tars / name if name.endswith(".tar") else self.folder / name

    def __str__(self) -> str:
        return f"{self.folder}{HERE}{self.tars}"

    @property
    def name(self) -> str:
        return self.folder.name


Place = Path | Address | SplitPlace


def place_of(text: str) -> Place:
    """What a user means by `text`; raises UserError for a command that gives one file alone."""
    split = _SPLIT.match(text)
    address = text[split.end() :] if split else text
    if not _ADDRESS.match(address):
        return Path(text)
    if address.startswith(PIPE) and "{}" not in address:
        raise UserError(
            f"{address}: gives one file, and a set is several: say {{}} where the name of one belongs (pipe:cat "
            "FOLDER/{}); where no manifest.json lies beside the tars, `relvlm data index --help` says how to make one"
        )
    return SplitPlace(Path(split[1]), Address(address)) if split else Address(address)


def open_address(address: Address) -> Stream:
    """A stream of its bytes. Raises UserError where a package is missing, and whatever the store's own raises."""
    if address.startswith(PIPE):
        return CommandOutput(address.removeprefix(PIPE))
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
    stream: Stream = system.open(path, "rb", **options)
    return stream


def _missing(address: Address, what: str) -> UserError:
    return UserError(f"{address}: a package is missing: {what} (pip install 'relvlm[remote]')")
