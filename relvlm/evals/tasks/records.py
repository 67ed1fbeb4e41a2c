"""Strict reading of the fields of annotations: what a loader gets is what stood in the file, or a UserError."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from relvlm.errors import UserError
from relvlm.evals.files import Row, read_csv, read_json, read_jsonl
from relvlm.evals.tasks import shapes

FLAGS = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}


@dataclass(frozen=True)
class Record:
    """One record of a `kind` file; `where` names file and record, `prefix` the field that it is the value of.

    Each method raises UserError, naming file, record and field, for a value of another type.
    """

    row: Row
    where: str
    kind: str
    prefix: str = ""

    def has(self, field: str) -> bool:
        """Whether the field is there, and not null."""
        return self.row.get(field) is not None

    def value(self, field: str) -> Any:
        """Whatever stands there."""
        if not self.has(field):
            fields = ", ".join(map(str, self.row)) or "nothing"
            raise self.error(field, f"absent, this is no {self.kind} file (it has: {fields})")
        return self.row[field]

    def text(self, field: str) -> str:
        """A string that says something."""
        return self._text(self.value(field), field)

    def texts(self, field: str, least: int = 1) -> list[str]:
        """A list of at least so many strings."""
        found = self.value(field)
        if not isinstance(found, list) or len(found) < least:
            raise self.error(field, f"{_short(found)} is no list of {least} or more texts")
        return [self._text(text, f"{field}[{i}]") for i, text in enumerate(found)]

    def image(self, field: str) -> str:
        """The name of a photo, which does not lead out of the folder of photos."""
        return self._name(self.text(field), field)

    def image_id(self, field: str) -> str:
        """The name of a photo, or its number."""
        return self._name(self.identity(field), field)

    def identity(self, field: str) -> str:
        """A string, or a whole number."""
        found = self.value(field)
        return str(found) if isinstance(found, int) and not isinstance(found, bool) else self._text(found, field)

    def whole(self, field: str) -> int:
        """A whole number; 3.0 is one."""
        found = self.value(field)
        if isinstance(found, bool) or not isinstance(found, (int, float)) or found != found or found % 1:
            raise self.error(field, f"{_short(found)} is no whole number")
        return int(found)

    def place(self, field: str, end: int) -> int:
        """A whole number from 0 to `end` - 1; a CSV file has its digits."""
        found = self.value(field)
        digits = isinstance(found, str) and found.strip().isascii() and found.strip().isdigit() and len(found) < 10
        number = int(found) if digits else self.whole(field)
        if not 0 <= number < end:
            raise self.error(field, f"{number} is no place among {end} (from 0 on)")
        return number

    def numbers(self, field: str, count: int) -> list[float]:
        """A list of so many finite numbers."""
        found = self.value(field)
        if not isinstance(found, list) or len(found) != count or not all(map(_is_finite, found)):
            raise self.error(field, f"{_short(found)} is no list of {count} numbers")
        return [float(x) for x in found]

    def flag(self, field: str) -> bool:
        """True or false; 1 and 0, 1.0 and 0.0, and these as text are flags too."""
        found = self.value(field)
        flag = FLAGS.get(str(found).strip().lower()) if isinstance(found, (bool, int, float, str)) else None
        if flag is None:
            raise self.error(field, f"{_short(found)} is neither 0 nor 1, neither True nor False")
        return flag

    def record(self, field: str) -> Record:
        """An object."""
        return self._record(self.value(field), field)

    def records(self, field: str) -> list[Record]:
        """A list of objects, not empty."""
        found = self.value(field)
        if not isinstance(found, list) or not found:
            raise self.error(field, f"{_short(found)} is no list of objects, or an empty one")
        return [self._record(row, f"{field}[{i}]") for i, row in enumerate(found)]

    def error(self, field: str, what: str) -> UserError:
        """That something is wrong with a field."""
        return UserError(f"{self.where}: {self.prefix}{field}: {what}")

    def _record(self, row: Any, field: str) -> Record:
        if not isinstance(row, dict):
            raise self.error(field, f"{_short(row)} is no object")
        return Record(row, self.where, self.kind, f"{self.prefix}{field}.")

    def _text(self, found: Any, field: str) -> str:
        if not isinstance(found, str):
            raise self.error(field, f"{_short(found)} is no text (write it in quotes)")
        if not found.strip():
            raise self.error(field, "is empty (write it, or leave the record out)")
        if "\0" in found or any("\ud800" <= c <= "\udfff" for c in found):
            raise self.error(field, f"{_short(found)} has a character that is none (NUL, or half of a pair)")
        return found

    def _name(self, name: str, field: str) -> str:
        if name.startswith("/") or ".." in name.split("/"):
            raise self.error(field, f"{name!r} leads out of the folder of photos (give names within it)")
        return name


def record(row: Any, where: str, kind: str, fields: Sequence[str] = ()) -> Record:
    """A record that may be of `kind`; `fields`: all that its loader reads.

    Raises UserError for what is no object, for a record of another benchmark, and for a field that is misspelt.
    """
    if not isinstance(row, dict):
        raise UserError(f"{where}: expected an object, this is no {kind} file")
    other = shapes.other_shape(frozenset(row), kind)
    if other:
        raise UserError(f"{where}: this is no {kind} but {other}")
    wrong = _misspelt(frozenset(row), tuple(fields))
    if wrong:
        raise UserError(f"{where}: {wrong[0]}: no field of {kind} files (is {wrong[1]} meant?)")
    return Record(row, where, kind)


def listed(path: Path, kind: str, fields: Sequence[str]) -> list[Record]:
    """Records of a JSON list; UserError for another file, and for an empty one."""
    return records_of(read_tree(path, kind), path, kind, fields)


def arrays(path: Path, kind: str, length: int) -> list[Record]:
    """Rows of a JSON list of lists, each of so many values, whose fields are called by their places: `[0]`."""
    tree = read_tree(path, kind)
    if not isinstance(tree, list):
        raise UserError(f"{path}: top level: expected a list of examples, this is no {kind} file")
    for i, row in enumerate(_not_empty(tree, path)):
        if not isinstance(row, list) or len(row) != length:
            raise UserError(f"{path}: [{i}]: {_short(row)} is no list of {length}, this is no {kind} file")
    return [Record({f"[{n}]": x for n, x in enumerate(row)}, f"{path}: [{i}]", kind) for i, row in enumerate(tree)]


def listed_or_keyed(path: Path, kind: str, fields: Sequence[str]) -> dict[str, Record]:
    """Records of a JSON list, by their place, or of an object, by key."""
    tree = read_tree(path, kind)
    if isinstance(tree, list):
        return {str(i): each for i, each in enumerate(records_of(tree, path, kind, fields))}
    return _keyed(tree, path, kind, fields)


def keyed(path: Path, kind: str, fields: Sequence[str]) -> dict[str, Record]:
    """Records of a JSON object, by key; UserError for another file, and for an empty one."""
    return _keyed(read_tree(path, kind), path, kind, fields)


def lines(path: Path, kind: str, fields: Sequence[str]) -> list[Record]:
    """Records of a JSONL or CSV file (by its suffix), rows from 0; UserError for another file, and for an empty one."""
    _check_shape(path, kind)
    rows = read_csv(path) if path.suffix == ".csv" else list(read_jsonl(path))
    return [record(row, f"{path}: row {i}", kind, fields) for i, row in enumerate(_not_empty(rows, path))]


def records_of(tree: Any, path: Path, kind: str, fields: Sequence[str], within: str = "") -> list[Record]:
    """Records of a list that was read from a file, where it stood `within` a field."""
    if not isinstance(tree, list):
        raise UserError(f"{path}: {within or 'top level'}: expected a list of examples, this is no {kind} file")
    return [record(row, f"{path}: {within}[{i}]", kind, fields) for i, row in enumerate(_not_empty(tree, path))]


def read_tree(path: Path, kind: str) -> Any:
    """Parsed JSON of a `kind` file; UserError for one of another benchmark."""
    _check_shape(path, kind)
    return read_json(path)


def _keyed(tree: Any, path: Path, kind: str, fields: Sequence[str]) -> dict[str, Record]:
    if not isinstance(tree, dict):
        raise UserError(f"{path}: expected one object of examples, this is no {kind} file")
    keys = Record(dict.fromkeys(tree, 0), str(path), kind)
    return {
        keys._text(key, "key"): record(row, f"{path}: {key}", kind, fields)
        for key, row in _not_empty(tree, path).items()
    }


def _check_shape(path: Path, kind: str) -> None:
    found = shapes.file_shape(path)
    if found and found.kind != kind:
        raise UserError(f"{path}: this is no {kind} but {shapes.in_words(found)}")


def _not_empty(rows: Any, path: Path) -> Any:
    if not rows:
        raise UserError(f"{path}: no examples in it (expected a list of examples, or an object of them)")
    return rows


@lru_cache(maxsize=256)
def _misspelt(fields: frozenset[str], known: tuple[str, ...]) -> tuple[str, str] | None:
    """A field that nobody reads, and the absent one that it is like."""
    spare = {field.lower().replace("-", "_").replace(" ", "_"): field for field in sorted(fields - set(known))}
    for absent in (field for field in known if field not in fields):
        close = difflib.get_close_matches(absent, spare, 1, 0.85)
        if close:
            return spare[close[0]], absent
    return None


def _is_finite(value: Any) -> bool:
    try:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # a whole number beyond all floats
        return False


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
