"""Text files of a row or a record a line, read as bytes: one bad line is one fault, not the end of the file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from relvlm.data.sources.faults import RecordFault, shown
from relvlm.data.sources.meter import Meter
from relvlm.errors import UserError

LONGEST = 1 << 20  # bytes of a line; more is no table


def numbered_lines(path: Path, meter: Meter, header: str = "") -> Iterator[tuple[int, bytes]]:
    """(number from 0, line without its end) of each line that is not empty; a first line `header` does not count.

    Raises UserError where the file cannot be read, or a line has no end.
    """
    try:
        with path.open("rb") as stream:
            meter.total += path.stat().st_size
            number = 0
            while line := stream.readline(LONGEST):
                meter.done += len(line)
                if len(line) == LONGEST:
                    raise UserError(f"{path}: line {number + 1} is longer than {LONGEST} bytes (is it another file?)")
                text = line.rstrip(b"\r\n").removeprefix(b"\xef\xbb\xbf" if number == 0 else b"")
                if number == 0 and header and text.decode(errors="replace").strip().lower() == header:
                    header = ""
                    continue
                if text.strip():
                    yield number, text
                number += 1
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror} (check the path)") from error


def as_line(data: bytes) -> str:
    """The text of a line; raises RecordFault where it is not UTF-8."""
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise RecordFault("not UTF-8", shown(data)) from error


def split_row(line: bytes, columns: int) -> list[str]:
    """The fields of a tab-separated row; raises RecordFault where there are not `columns`."""
    fields = as_line(line).split("\t")
    if len(fields) != columns:
        raise RecordFault(f"not {columns} columns with tabs between", f"{len(fields)}: {shown(line)}")
    return fields
