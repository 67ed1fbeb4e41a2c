"""Large JSON files one record at a time: the memory of one record, whatever the file's size.

The standard library's scanner reads each record, so that a record is what `load_json` would have made of it: keys that
stand twice are marked, NaN and Infinity are floats. (ijson would say neither.)
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
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


def nested_items(path: Path, name: str, meter: Meter | None = None, whole: bool = True) -> Iterator[Any]:
    """The items of the list `name` within the object that the file `path` holds; raises UserError, also without it.

    Unless it is to be read `whole`, nobody looks at what stands behind the list.
    """
    found = False
    for _, item in _members(path, "{", meter, name):
        found = True
        if item is _END and not whole:
            return
        if item is not _START and item is not _END:
            yield item
    if not found:
        raise UserError(f"{path}: '{name}' is missing, or no list (is it another file?)")


_START, _END = object(), object()  # of a nested list


def _members(
    path: Path, opening: str, meter: Meter | None, nested: str = "", texts: bool = False
) -> Iterator[tuple[str, Any]]:
    try:
        with path.open("rb") as raw:
            encoding = json.detect_encoding(raw.read(4))
        with path.open(encoding=encoding, errors="surrogatepass", newline="") as stream:
            if meter is not None:
                meter.total += path.stat().st_size
            reader = _Reader(path, stream, meter, texts)
            yield from reader.nested(nested) if nested else reader.members(opening)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror} (check the path)") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON: {error} (download it again)") from error


class _Reader:
    def __init__(self, path: Path, stream: TextIO, meter: Meter | None, texts: bool) -> None:
        self._path, self._stream, self._meter, self._texts = path, stream, meter, texts
        self._decoder = json.JSONDecoder(object_pairs_hook=None if texts else unique_keys)
        self._text, self._at, self._ended = "", 0, False
        self._start = 0  # of the last value

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

    def nested(self, name: str) -> Iterator[tuple[str, Any]]:
        """(name, item) for each of the list `name`, between _START and _END; other members are read over."""
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
                items: Iterable[Any] = () if self._closes() else self._listed("[", "]")
                if key == name:
                    yield name, _START
                    yield from items
                    yield name, _END
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
            yield key, self._text[self._start : self._at] if self._texts else value
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
