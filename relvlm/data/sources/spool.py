"""Records put together by image on disk, where a dataset tells of one image in several places of several files."""

from __future__ import annotations

import pickle
import sqlite3
from collections.abc import Iterator
from typing import Any


class Spool:
    """Values by part and image, in a database that has no name: it is gone with the process, however that ends."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("", check_same_thread=False)
        self._database.execute("CREATE TABLE record (part TEXT, image TEXT, value BLOB)")
        self._indexed = False

    def put(self, part: str, image: str, value: Any) -> None:
        """Add a value to those of an image; all before the first `get`, else it is slow."""
        self._database.execute("INSERT INTO record VALUES (?, ?, ?)", (part, image, pickle.dumps(value)))

    def get(self, part: str, image: str) -> list[Any]:
        """The values of an image in the order in which they came."""
        if not self._indexed:
            self._database.execute("CREATE INDEX IF NOT EXISTS place ON record (part, image)")
            self._indexed = True
        query = "SELECT value FROM record WHERE part = ? AND image = ? ORDER BY rowid"
        return [pickle.loads(value) for (value,) in self._database.execute(query, (part, image))]

    def images(self, part: str = "") -> Iterator[str]:
        """The images that have a value, of that part if one is named, in the order in which they first came."""
        query = "SELECT image FROM record WHERE part = ? OR ? GROUP BY image ORDER BY MIN(rowid)"
        return (image for (image,) in self._database.execute(query, (part, not part)))
