"""metrics.csv: one row a step, cut back to its checkpoint when a run is resumed."""

from __future__ import annotations

import csv
import errno
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from relvlm import storage
from relvlm.engine.columns import CLOCKS

Row = dict[str, Any]


def _write_all(file: io.RawIOBase, data: bytes) -> None:
    """A disk that is nearly full takes a part and says how much."""
    if (file.write(data) or 0) < len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class MetricsCsv:
    """`columns` that a row lacks are blank, e.g. the losses of other kinds of step.

    Those of kinds that a resumed run draws no more come after them.
    """

    errors: tuple[type[Exception], ...] = (OSError,)

    def __init__(self, path: Path, columns: list[str], start_step: int) -> None:
        """Start the file anew, keeping the whole rows up to `start_step` of a run that is resumed."""
        self.path = path
        kept = _rows(path, start_step) if start_step and path.exists() else []
        known = dict.fromkeys(name for row in kept for name, cell in row.items() if cell)
        self.columns = list(dict.fromkeys([*columns, *known]))
        temporary = path.with_suffix(".tmp")
        with storage.writing(path):
            with temporary.open("w", newline="") as file:
                writer = csv.DictWriter(file, self.columns, restval="", extrasaction="ignore")
                writer.writeheader()
                writer.writerows(kept)
            temporary.replace(path)

    def write(self, rows: list[Row]) -> None:
        """All rows, or none: half a row would spoil the next."""
        text = io.StringIO(newline="")
        csv.DictWriter(text, self.columns, restval="").writerows(map(_shown, rows))
        with self.path.open("ab", buffering=0) as file:
            end = file.tell()
            try:
                _write_all(file, text.getvalue().encode())
            except OSError:
                file.truncate(end)
                raise

    def note(self, step: int, figures: Mapping[str, float]) -> None:
        """Evaluations have a file of their own (judging.py)."""

    def close(self) -> None: ...


def _rows(path: Path, last: int) -> list[dict[str, str]]:
    """The whole rows up to step `last`."""
    with path.open(newline="") as file:
        whole = (row for row in csv.DictReader(file) if None not in row.values())
        return [row for row in whole if int(row["step"]) <= last]


def _shown(row: Row) -> Row:
    """Clocks and the learning rate in six digits, what is not known blank; losses and norms whole."""
    short = {name: f"{row[name]:.6g}" for name in (*CLOCKS, "lr") if row.get(name) is not None}
    return row | short
