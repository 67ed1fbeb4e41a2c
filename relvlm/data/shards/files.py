"""The files of a shard set: in a folder, or at an address and then in this node's cache."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

from relvlm import storage
from relvlm.config.cache import CacheConfig
from relvlm.data.shards.address import Address, Place, SplitPlace
from relvlm.data.shards.cache import ShardCache
from relvlm.data.shards.index import ShardIndex, check_is_there, index_name
from relvlm.data.shards.manifest import ShardEntry, check_size

Opened = TypeVar("Opened")


class Files(Protocol):
    """`tar` gives what `opener` makes of a tar's path, which is not to be kept: the file may go once it is open."""

    def tar(self, entry: ShardEntry, opener: Callable[[Path], Opened]) -> Opened: ...

    def index(self, entry: ShardEntry) -> ShardIndex: ...

    def check(self, entry: ShardEntry) -> None:
        """Raise UserError where something is known to be wrong before it is read."""

    def fetch(self, entry: ShardEntry) -> None:
        """Bring a shard and its index here, if they are not, where that is done before they are opened."""


class LocalFiles:
    """Of a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def tar(self, entry: ShardEntry, opener: Callable[[Path], Opened]) -> Opened:
        return opener(self.folder / entry.name)

    def index(self, entry: ShardEntry) -> ShardIndex:
        return ShardIndex(self.folder / index_name(entry.name), entry.index, entry.samples)

    def check(self, entry: ShardEntry) -> None:
        check_size(self.folder / entry.name, entry)
        check_is_there(self.folder / index_name(entry.name))

    def fetch(self, entry: ShardEntry) -> None:
        """Nothing."""


class CachedFiles:
    """Of an address: fetched when they are opened, checked against the manifest then."""

    def __init__(self, address: Address, cache: CacheConfig) -> None:
        """Raises UserError where the cache cannot be a folder that is written to."""
        self.address, self.cache = address, ShardCache.of(cache)
        storage.check_folder(self.cache.folder, "data.cache.folder")

    def tar(self, entry: ShardEntry, opener: Callable[[Path], Opened]) -> Opened:
        return self.cache.opened(self.address / entry.name, entry.bytes, entry.sha256, opener)

    def index(self, entry: ShardEntry) -> ShardIndex:
        address = self.address / index_name(entry.name)
        return self.cache.opened(address, None, entry.index, lambda path: ShardIndex(path, entry.index, entry.samples))

    def check(self, entry: ShardEntry) -> None:
        """Nothing: 13,000 shards are not asked for one by one."""

    def fetch(self, entry: ShardEntry) -> None:
        """One try; raises UserError where that fails."""
        self.cache.fetch(self.address / entry.name, entry.bytes, entry.sha256)
        self.cache.fetch(self.address / index_name(entry.name), None, entry.index)


class SplitFiles(CachedFiles):
    """Tars of an address, with their indexes in a folder."""

    def __init__(self, place: SplitPlace, cache: CacheConfig) -> None:
        super().__init__(place.tars, cache)
        self.here = LocalFiles(place.folder)

    def index(self, entry: ShardEntry) -> ShardIndex:
        return self.here.index(entry)

    def check(self, entry: ShardEntry) -> None:
        check_is_there(self.here.folder / index_name(entry.name))

    def fetch(self, entry: ShardEntry) -> None:
        self.cache.fetch(self.address / entry.name, entry.bytes, entry.sha256)


def files_of(place: Place, cache: CacheConfig) -> Files:
    """Those of a set that lies there."""
    if isinstance(place, SplitPlace):
        return SplitFiles(place, cache)
    return CachedFiles(place, cache) if isinstance(place, Address) else LocalFiles(place)
