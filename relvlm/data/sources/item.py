"""What a source gives to the driver: items, each a place where a photo lies and the raw annotation of it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from relvlm.data.shards.schema import Sample
from relvlm.data.sources.faults import Faults
from relvlm.data.sources.meter import Meter
from relvlm.data.sources.raw import NoPhoto, PhotoFault

Size = tuple[int, int]  # width, height in pixels


class Photo(Protocol):
    """Where the encoded bytes of a photo lie."""

    @property
    def name(self) -> str:
        """The photo's file name, as faults and `--exclude` know it."""

    def is_there(self) -> bool:
        """Whether there are bytes to read, told without reading them."""

    def read(self) -> bytes:
        """The encoded bytes; raises PhotoFault."""


class FilePhoto(NamedTuple):
    """The one `folder/name` there is in `folders`."""

    name: str
    folders: tuple[Path, ...]

    def is_there(self) -> bool:
        return leaves_folder(self.name) or any(_is_file(f"{folder}/{self.name}") for folder in self.folders)

    def read(self) -> bytes:
        if leaves_folder(self.name):
            raise PhotoFault(self.name, "leaves the photo folder")
        try:
            paths = [path for folder in self.folders if (path := folder / self.name).is_file()]
            found = list(dict.fromkeys(path.read_bytes() for path in paths))
        except OSError as error:
            raise PhotoFault(self.name, "cannot be read", error.strerror or str(error)) from error
        if not found:
            raise NoPhoto(self.name, "no such photo")
        if len(found) > 1:
            raise PhotoFault(self.name, "is another photo in each folder", ", ".join(map(str, self.folders)))
        return found[0]


class SlicePhoto(NamedTuple):
    """`size` bytes of `file` from `offset` on, such as a member of a tar."""

    name: str
    file: Path
    offset: int
    size: int

    def is_there(self) -> bool:
        return True

    def read(self) -> bytes:
        try:
            with self.file.open("rb") as stream:
                stream.seek(self.offset)
                data = stream.read(self.size)
        except OSError as error:
            raise PhotoFault(self.name, "cannot be read", error.strerror or str(error)) from error
        if len(data) != self.size:
            raise PhotoFault(self.name, "cut short", f"{len(data)} bytes of {self.size}")
        return data


def leaves_folder(name: str) -> bool:
    """Whether `folder/name` may lie outside the folder (or can be no file's name)."""
    return name.startswith("/") or ".." in name.split("/") or "\0" in name


def _is_file(path: str) -> bool:
    """As Path.is_file, but quick; also what cannot be looked at: `read` says what is wrong."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, UnicodeEncodeError):
        return True


class Item(NamedTuple):
    """One image of a source; `record` is what `Source.sample` reads, pickled on its way to a worker."""

    image_id: str
    key: str
    photo: Photo
    record: Any


class Source(Protocol):
    """A raw dataset. The driver asks for the items in one process and for the samples in others."""

    @property
    def name(self) -> str:
        """The samples' source."""

    @property
    def hint(self) -> str:
        """What to do where no photo is found."""

    def files(self) -> Sequence[Path]:
        """What `items` reads: a build that was interrupted goes on only while these are unchanged."""

    def arguments(self) -> dict[str, Any]:
        """What the manifest says of the input."""

    def places(self) -> str:
        """Where photos are looked for."""

    def items(self, faults: Faults, meter: Meter) -> Iterator[Item]:
        """Every image, in the same order each time; raises UserError for a file as a whole."""

    def sample(self, item: Item, size: Size, faults: Faults) -> Sample:
        """The annotation as a sample of a photo of `size`; raises RecordFault or PhotoFault."""
