"""Large JSON files one record at a time: the memory of one record, whatever the file's size.

The standard library's scanner reads each record, so that a record is what `load_json` would have made of it: keys that
stand twice are marked, NaN and Infinity are floats. (ijson would say neither.)
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, TextIO

from relvlm.data.json_keys import unique_keys
from relvlm.data.sources.meter import Meter
from relvlm.errors import UserError

CHUNK = 1 << 18  # characters
_SPACE = " \t\n\r"
_AFTER = frozenset(_SPACE + ",:]}")  # what may follow a value


def list_items(path: Path, meter: Meter | None = None) -> Iterator[Any]:
    """The items of the list that the file `path` holds; raises UserError."""
    for _, item in _members(path, "[", meter):
        yield item


def object_items(path: Path, meter: Meter | None = None) -> Iterator[tuple[str, Any]]:
    """(key, value) of the object that the file `path` holds, also of keys that stand twice; raises UserError."""
    yield from _members(path, "{", meter)


def object_texts(path: Path, meter: Meter | None = None) -> Iterator[tuple[str, str]]:
    """(key, text of the value) of the object that the file `path` holds; raises UserError.

    A text is quicker than its value to send to another process, which reads it by `value_of`.
    """
    yield from _members(path, "{", meter, texts=True)


def value_of(text: str) -> Any:
    """The value that `object_items` would have given."""
    return json.loads(text, object_pairs_hook=unique_keys)


def list_texts(path: Path, meter: Meter | None = None) -> Iterator[tuple[Any, str]]:
    """(item, its text) of the list that the file `path` holds; raises UserError.

    The item is what `json` makes of it, quick to find an id in; that a key stands twice is seen by `value_of` its text.
    """
    with _opened(path, meter, plain=True) as reader:
        for _, item in reader.members("["):
            yield item, reader.text


def nested_texts(path: Path, names: Collection[str], meter: Meter | None = None) -> Iterator[tuple[str, Any, str]]:
    """(name, item, its text) of the lists `names` within the object that the file `path` holds, in the file's order.

    Items as those of `list_texts`. Raises UserError, also where one of the lists is missing.
    """
    with _opened(path, meter, plain=True) as reader:
        for name, item in reader.nested(names):
            yield name, item, reader.text
        for name in names:
            if name not in reader.lists:
                raise UserError(f"{path}: '{name}' is missing, or no list (is it another file?)")


def _members(path: Path, opening: str, meter: Meter | None, texts: bool = False) -> Iterator[tuple[str, Any]]:
    with _opened(path, meter, plain=texts) as reader:
        for key, value in reader.members(opening):
            yield key, reader.text if texts else value


@contextmanager
def _opened(path: Path, meter: Meter | None, plain: bool) -> Iterator[_Reader]:
    """A reader; what goes wrong while it is in use is a UserError."""
    try:
        with path.open("rb") as raw:
            encoding = json.detect_encoding(raw.read(4))
        with path.open(encoding=encoding, errors="surrogatepass", newline="") as stream:
            if meter is not None:
                meter.total += path.stat().st_size
            yield _Reader(path, stream, meter, plain)
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror} (check the path)") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON: {error} (download it again)") from error


class _Reader:
    """`plain`: objects as `json` makes them, at its speed; else with their repeated keys marked."""

    def __init__(self, path: Path, stream: TextIO, meter: Meter | None, plain: bool) -> None:
        self._path, self._stream, self._meter = path, stream, meter
        self._decoder = json.JSONDecoder(object_pairs_hook=None if plain else unique_keys)
        self._text, self._at, self._ended = "", 0, False
        self._start = 0  # of the last value
        self.lists: set[str] = set()  # the names of those that `nested` has met

    @property
    def text(self) -> str:
        """That of the last value."""
        return self._text[self._start : self._at]

    def members(self, opening: str) -> Iterator[tuple[str, Any]]:
        if self._peek() != opening:
            self._wrong_top(opening)
        self._at += 1
        closing = "]" if opening == "[" else "}"
        if self._peek() == closing:
            self._at += 1
        else:
            yield from self._listed(opening, closing)
        if self._peek():
            raise ValueError("Extra data after the end")

    def nested(self, names: Collection[str]) -> Iterator[tuple[str, Any]]:
        """(name, item) of the lists `names`; other members are read over."""
        if self._peek() != "{":
            self._wrong_top("{")
        self._at += 1
        mark, keys = "," if self._peek() != "}" else self._text[self._at], set[str]()
        self._at += mark == "}"
        while mark == ",":
            key = self._key()
            if key in keys:
                raise ValueError(f"{key!r} stands twice")
            keys.add(key)
            if self._peek() == "[":
                self._at += 1
                items: Iterable[tuple[str, Any]] = () if self._closes() else self._listed("[", "]")
                if key in names:
                    self.lists.add(key)
                    for _, item in items:
                        yield key, item
                else:
                    self._read_over(items)
            else:
                self._value()
            mark = self._peek()
            self._at += 1
        if mark != "}" or self._peek():
            raise ValueError(f"expected ',' or '}}', found {mark!r}" if mark != "}" else "Extra data after the end")

    def _read_over(self, items: Iterable[Any]) -> None:
        strict, self._decoder = self._decoder, json.JSONDecoder()  # quicker; nobody sees the items
        for _ in items:
            pass
        self._decoder = strict

    def _closes(self) -> bool:
        """Whether the list that was opened is empty; then it is behind."""
        empty = self._peek() == "]"
        self._at += empty
        return empty

    def _listed(self, opening: str, closing: str) -> Iterator[tuple[str, Any]]:
        while True:
            key = self._key() if opening == "{" else ""
            value = self._value()
            yield key, value
            mark = self._peek()
            self._at += 1
            if mark == closing:
                return
            if mark != ",":
                raise ValueError(f"expected ',' or '{closing}', found {mark!r}" if mark else "the file ends early")

    def _key(self) -> str:
        key = self._value() if self._peek() == '"' else None
        if type(key) is not str or self._peek() != ":":
            raise ValueError("expected a key in double quotes and ':'")
        self._at += 1
        return key

    def _value(self) -> Any:
        """The next value. It may go on behind the text that has been read (12, 12., 12.5): what follows tells."""
        self._peek()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
                if self._text[end : end + 1] in _AFTER or self._ended:
                    self._start, self._at = self._at, end
                    return value
            except json.JSONDecodeError:
                if self._ended:
                    raise
            self._more()

    def _peek(self) -> str:
        """The next character that is no space, "" at the end of the file."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in _SPACE:
                self._at += 1
            if self._at < len(self._text) or self._ended:
                return self._text[self._at : self._at + 1]
            self._more()

    def _more(self) -> None:
        """Read at least as much as is left over, so that a long record is not scanned again and again."""
        left = self._text[self._at :]
        chunk = self._stream.read(max(CHUNK, len(left)))
        self._text, self._at, self._ended = left + chunk, 0, not chunk
        if self._meter is not None:
            self._meter.done += len(chunk)

    def _wrong_top(self, opening: str) -> NoReturn:
        value = self._value()
        expected = "list" if opening == "[" else "dict"
        raise UserError(
            f"{self._path}: top level is a {type(value).__name__}, expected a {expected} (is it another file?)"
        )
