"""Reading annotation and score files with errors that name file and row; finding images; atomic writing."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from relvlm.errors import UserError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
Row = dict[str, Any]


def read_json(path: Path) -> Any:
    """Parsed JSON; a key that occurs twice in one object is an error, where json would keep the last."""
    try:
        return json.loads(_text(path), object_pairs_hook=lambda pairs: _unique(pairs, path))
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: not JSON: {error}") from error


def read_jsonl(path: Path) -> Iterator[Row]:
    """Each line's object, read as it goes (retrieval has millions); blank lines are skipped."""
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield _object(line, f"{path}: line {number}")


def read_csv(path: Path) -> list[Row]:
    """Each line of a CSV file with a header."""
    return list(csv.DictReader(_text(path).splitlines()))


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
    every = sorted(p for p in path.iterdir() if p.suffix in suffixes)
    files = [p for p in every if p.name.startswith(f"{prefix}_")] or every
    if not files:
        raise UserError(f"{path}: no {' or '.join(suffixes)} file in this folder (give the {prefix} files)")
    return files


def piece_name(path: Path, prefix: str) -> str:
    """File stem without the benchmark's own prefix: `valse_foil-it.json` is `foil-it`."""
    return path.stem.removeprefix(f"{prefix}_")


def find_image(folder: Path, name: str) -> Path | None:
    """The image file of an annotation's name, or None.

    Tried in `folder`, then in its subfolders (VG_100K, val2014, ...): the name, its last part, what follows the
    last `_` (COCO 2014 names in a 2017 folder), each with an image suffix added where it has none.
    """
    for directory in _directories(folder):
        for candidate in _names(name):
            if (directory / candidate).is_file():
                return directory / candidate
    return None


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
    try:
        row = json.loads(line)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{where}: not JSON: {error}") from error
    if not isinstance(row, dict):
        raise UserError(f"{where}: expected one object per line")
    return row


def _text(path: Path) -> str:
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a text file: {error}") from error


def _unique(pairs: list[tuple[str, Any]], path: Path) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise UserError(f"{path}: {twice}: occurs twice (remove one of the two)")
    return result


@lru_cache(maxsize=8)
def _directories(folder: Path) -> tuple[Path, ...]:
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder (give --images)")
    return (folder, *sorted(p for p in folder.iterdir() if p.is_dir()))


def _names(name: str) -> Iterator[str]:
    last = name.rsplit("/", 1)[-1]
    for stem in dict.fromkeys((name, last, last.rsplit("_", 1)[-1])):
        yield stem
        if not stem.lower().endswith(IMAGE_SUFFIXES):
            yield from (stem + suffix for suffix in IMAGE_SUFFIXES)
