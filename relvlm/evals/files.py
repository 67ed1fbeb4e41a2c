"""Reading annotation and score files with errors that name file and row; atomic writing."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from relvlm.errors import UserError

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
Row = dict[str, Any]
# Names in metrics.json, beside which the figures of a benchmark's files stand by theirs.
RESERVED = frozenset(
    (
        *("task", "overall", "n", "interval95", "counts", "intervals95", "chance", "chances", "held_out", "rule"),
        *("protocol", "n_pairs", "texts_cut", "score", "scored", "made_from", "by_piece", "by_split", "kind"),
        *("p_c", "p_f", "acc_thresholded", "min_pc_pf", "called_true", "calibrated_at_median", "text", "image"),
        *("group", "macro_over_files", "macro_by_edit", "macro_over_instruments", "macro_over_pieces"),
        *("macro_relation", "macro_attribution", "micro", "interval95_micro", "pairs", "sets", "cosine", "text_only"),
        *("logit_and_cosine", "average"),
        *("negative_equals_caption", "by_aspect", "by_type", "whole_photo"),
    )
)


def read_json(path: Path) -> Any:
    """Parsed JSON; a key that occurs twice in one object is an error, where json would keep the last."""
    return _parsed(_bytes(path), str(path))


def read_object(path: Path) -> Row:
    """The one object of a JSON file; UserError for another file."""
    found = read_json(path)
    if not isinstance(found, dict):
        raise UserError(f"{path}: expected one object")
    return found


def read_jsonl(path: Path) -> Iterator[Row]:
    """Each line's object, read as it goes (retrieval has millions); blank lines are skipped."""
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            text = line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line
            if text.strip():
                yield _object(text, f"{path}: line {number}")


def read_csv(path: Path) -> list[Row]:
    """Each row of a CSV file with a header; a quoted field may have line ends in it.

    Raises UserError for a column that occurs twice, and for a row that is not as long as the header.
    """
    reader = csv.reader(io.StringIO(decoded(_bytes(path), str(path)), newline=""), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        twice = next((name for i, name in enumerate(header) if name in header[:i]), None)
        if twice is not None:
            raise UserError(f"{path}: {twice}: occurs twice in the header (remove one of the two)")
        return [_csv_row(header, cells, f"{path}: line {reader.line_num}") for cells in reader if cells]
    except csv.Error as error:
        raise UserError(f"{path}: line {reader.line_num}: not CSV: {error}") from error


def decoded(data: bytes, where: str) -> str:
    """UTF-8 text, without the byte order mark that some programs put first; UserError for what is none."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: not a text file in UTF-8: {error}") from error


def require(row: Row, fields: Iterable[str], where: str, kind: str) -> None:
    """Raises UserError when `row` lacks one of `fields`: mostly a file of another task."""
    missing = [field for field in fields if row.get(field) is None]
    if missing:
        raise UserError(f"{where}: {missing[0]}: absent, this is no {kind} file (it has: {', '.join(map(str, row))})")


def annotation_files(path: Path, prefix: str, suffixes: tuple[str, ...]) -> list[Path]:
    """The file itself, or of a folder those named `<prefix>_*`, else all with a fitting suffix; sorted."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UserError(f"{path}: no such file or folder (give --annotations)")
    every = sorted(p for p in path.iterdir() if p.suffix in suffixes and not p.name.startswith("."))
    files = [p for p in every if p.name.startswith(f"{prefix}_")] or every
    if not files:
        raise UserError(f"{path}: no {' or '.join(suffixes)} file in this folder (give the {prefix} files)")
    return files


def piece_name(path: Path, prefix: str) -> str:
    """File stem without the benchmark's own prefix: `valse_foil-it.json` is `foil-it`.

    UserError where that is the name of a figure, which it would take the place of.
    """
    name = path.stem.removeprefix(f"{prefix}_")
    if name in RESERVED:
        raise UserError(f"{path}: {name!r} is the name of a figure (rename the file)")
    return name


def write_atomic(path: Path, lines: Iterable[str]) -> None:
    """Write `lines` (without line ends) so that `path` is absent, old or whole, never half there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON atomically; NaN is refused."""
    write_atomic(path, [json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)])


def _object(line: bytes, where: str) -> Row:
    row = _parsed(line, where)
    if not isinstance(row, dict):
        raise UserError(f"{where}: expected one object per line")
    return row


def _parsed(data: bytes, where: str) -> Any:
    text = decoded(data, where)
    try:
        return json.loads(text, object_pairs_hook=lambda pairs: _unique(pairs, where))
    except UserError:
        raise
    except (ValueError, RecursionError) as error:  # ValueError also for a number of thousands of digits
        raise UserError(f"{where}: not JSON: {error}") from error


def _csv_row(header: list[str], cells: list[str], where: str) -> Row:
    if len(cells) != len(header):
        raise UserError(f"{where}: {len(cells)} fields, the header has {len(header)} (quote fields that have commas)")
    return dict(zip(header, cells, strict=True))


def _bytes(path: Path) -> bytes:
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error


def _unique(pairs: list[tuple[str, Any]], where: str) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise UserError(f"{where}: {twice}: occurs twice (remove one of the two)")
    return result
