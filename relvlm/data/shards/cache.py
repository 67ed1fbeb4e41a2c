"""A bounded cache of shards on a local disk, shared by all processes of a node.

A file's name is its SHA-256, so it is the same whatever its address, and nothing that is not whole ever has it: it is
fetched under another name, checked, and renamed. Locks keep two processes from fetching a file twice, and from filling
the same room. The file that was opened least recently goes first.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from relvlm import storage
from relvlm.config.cache import CacheConfig
from relvlm.data.shards.address import Address
from relvlm.data.shards.fetching import again, fetch
from relvlm.errors import UserError
from relvlm.paths import expand

HOME = "~/.cache/relvlm/shards"
PART = ".part"
ABANDONED_S = 600.0  # without a byte written: a file that is fetched by nobody any more
WAIT_S = 0.05
Opened = TypeVar("Opened")


@dataclass(frozen=True)
class ShardCache:
    """Cheap to make and to pickle."""

    folder: Path
    max_bytes: int
    tries: int

    @classmethod
    def of(cls, config: CacheConfig) -> ShardCache:
        folder = Path(config.folder) if config.folder else Path(expand(HOME))
        return cls(folder, round(config.max_gb * 1e9), config.tries)

    def opened(self, address: Address, size: int | None, digest: str, opener: Callable[[Path], Opened]) -> Opened:
        """What `opener` makes of the file, which is fetched unless it is there.

        An open file stays whole, though others may remove its name. Raises UserError where it cannot be fetched.
        """
        file = self.folder / digest
        while True:
            if not _is_there(file, size):
                self._fetch(file, address, size, digest)
            with contextlib.suppress(FileNotFoundError):  # removed by another process in between
                os.utime(file)
                return opener(file)

    def fetch(self, address: Address, size: int | None, digest: str) -> None:
        """Have the file, as if it had just been opened; one try. Raises UserError where it cannot be fetched."""
        file = self.folder / digest
        if not _is_there(file, size):
            replace(self, tries=1)._fetch(file, address, size, digest)
        with contextlib.suppress(FileNotFoundError):
            os.utime(file)

    def _fetch(self, file: Path, address: Address, size: int | None, digest: str) -> None:
        with storage.writing(self.folder, "data.cache.folder", size or 0), self._locked(digest[:2]):
            if _is_there(file, size):
                return
            part = file.with_name(f"{digest}.{os.uname().nodename}.{os.getpid()}{PART}")
            self._reserve(part, size or 0)
            try:
                with part.open("r+b") as stream:
                    again(address, self.tries, lambda: fetch(address, stream, size, digest))
                part.replace(file)
            except FileNotFoundError as error:
                raise UserError(f"{address}: missing, though manifest.json lists it (copy it there again)") from error
            finally:
                part.unlink(missing_ok=True)

    def _reserve(self, part: Path, size: int) -> None:
        """Make a file that is as large as what is to come; others are removed for it, or waited for."""
        if size > self.max_bytes:
            raise UserError(
                f"data.cache.max_gb: {self.max_bytes / 1e9:g}: a shard of {storage.gigabytes(size)} does not fit "
                "(allow more)"
            )
        while True:
            with self._locked("room"):
                if self._make_room(size):
                    with part.open("wb") as stream:
                        stream.truncate(size)
                    return
            time.sleep(WAIT_S)  # what others fetch takes the room: once it is there, it can go

    def _make_room(self, size: int) -> bool:
        found = [(status.st_mtime, status.st_size, path) for path, status in self._files()]
        excess = sum(each[1] for each in found) + size - self.max_bytes
        for changed, bytes_, path in sorted(found):
            if excess <= 0:
                break
            if path.suffix != PART or time.time() - changed > ABANDONED_S:
                path.unlink(missing_ok=True)
                excess -= bytes_
        return excess <= 0

    def _files(self) -> Iterator[tuple[Path, os.stat_result]]:
        with os.scandir(self.folder) as entries:
            for entry in entries:
                if not entry.name.startswith("."):
                    with contextlib.suppress(FileNotFoundError):
                        yield Path(entry.path), entry.stat()

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.folder / f".{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _is_there(file: Path, size: int | None) -> bool:
    try:
        return size in (None, file.stat().st_size)
    except FileNotFoundError:
        return False
