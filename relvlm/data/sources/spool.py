"""Records put together by image on disk, where a dataset tells of one image in several places of several files."""

from __future__ import annotations

import json
import pickle
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from relvlm.data.sources.faults import Faults
from relvlm.data.sources.fields import id_order

_TABLES = """
    PRAGMA journal_mode = OFF;
    PRAGMA synchronous = OFF;
    CREATE TABLE IF NOT EXISTS record (part TEXT, image TEXT, value BLOB);
    CREATE TABLE IF NOT EXISTS counted (faults TEXT);
"""


@dataclass(frozen=True)
class Spooling:
    """What sources share that fill a spool before their first item.

    `spool` is the file in which it stays, so that the next run of an interrupted build need not fill it again.
    """

    spool: Path | None = field(default=None, kw_only=True)


class Spool:
    """Values by part and image, in a file or in a database that has no name: gone with the process, however it ends."""

    def __init__(self, file: str = "") -> None:
        self._database = sqlite3.connect(file, check_same_thread=False)
        self._database.executescript(_TABLES)
        self._database.create_function("id_rank", 1, _id_rank, deterministic=True)
        self._indexed = False

    def put(self, part: str, image: str, value: Any) -> None:
        """Add a value to those of an image; all before the first one is asked for, else it is slow."""
        self._database.execute("INSERT INTO record VALUES (?, ?, ?)", (part, image, pickle.dumps(value)))

    def get(self, part: str, image: str) -> list[Any]:
        """The values of an image in the order in which they came."""
        return values(self.blobs(part, image))

    def blobs(self, part: str, image: str) -> list[bytes]:
        """The same as they lie there, for `values` in another process."""
        self._index()
        query = "SELECT value FROM record WHERE part = ? AND image = ? ORDER BY rowid"
        return [value for (value,) in self._database.execute(query, (part, image))]

    def images(self, part: str = "", without: str = "", by_id: bool = False) -> Iterator[str]:
        """The images that have a value, of that part if one is named, and none of the part `without`.

        In the order in which they first came, or by id.
        """
        self._index()
        query = """SELECT image FROM record AS one WHERE (part = ? OR ?) AND NOT EXISTS
            (SELECT 1 FROM record WHERE part = ? AND image = one.image) GROUP BY image ORDER BY """
        order = "id_rank(image)" if by_id else "MIN(rowid)"
        return (image for (image,) in self._database.execute(query + order, (part, not part, without)))

    def count(self, part: str) -> int:
        """How many images have a value of that part."""
        self._index()
        query = "SELECT COUNT(DISTINCT image) FROM record WHERE part = ?"
        found: int = self._database.execute(query, (part,)).fetchone()[0]
        return found

    def _index(self) -> None:
        if not self._indexed:
            self._database.execute("CREATE INDEX IF NOT EXISTS place ON record (part, image)")
            self._indexed = True

    def _close(self, counted: Faults) -> None:
        self._index()
        self._database.execute("INSERT INTO counted VALUES (?)", (json.dumps(counted.to_json()),))
        self._database.commit()
        self._database.close()

    def _counted(self) -> Iterator[Any]:
        return (json.loads(text) for (text,) in self._database.execute("SELECT faults FROM counted"))


def filled(file: Path | None, fill: Callable[[Spool, Faults], None], faults: Faults) -> Spool:
    """The spool that `fill` makes, or made in an earlier run, if there is a `file`; `faults` has what it counted.

    The file has its name once it is whole.
    """
    if file is None:
        spool = Spool()
        fill(spool, faults)
        return spool
    if not file.exists():
        partial, counted = file.with_name(f"{file.name}.tmp"), Faults(faults.source, faults.max_share)
        partial.unlink(missing_ok=True)
        spool = Spool(str(partial))
        fill(spool, counted)
        spool._close(counted)
        partial.rename(file)
    spool = Spool(str(file))
    for part in spool._counted():
        faults.include(part)
    return spool


def values(blobs: Iterable[bytes]) -> list[Any]:
    """What was put."""
    return [pickle.loads(blob) for blob in blobs]


def _id_rank(identifier: str) -> str:
    """A text that sorts as `id_order` does."""
    is_no_number, number, text = id_order(identifier)
    return f"b{text}" if is_no_number else f"a{number + 10**64:065d}{text}"


class SeenNames:
    """Which names have been there; memory does not grow with them."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("", check_same_thread=False)
        self._database.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;")
        self._database.execute("CREATE TABLE seen (name BLOB PRIMARY KEY) WITHOUT ROWID")

    def add(self, name: str) -> bool:
        """Whether it is new."""
        data = name.encode(errors="surrogatepass")
        return self._database.execute("INSERT OR IGNORE INTO seen VALUES (?)", (data,)).rowcount == 1
