"""Parquet files of the Hugging Face Hub: a column of images ({bytes, path}) and one of captions."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from relvlm.data.shards.schema import Sample
from relvlm.data.sources.building import add_output_arguments, build_and_report
from relvlm.data.sources.faults import Faults, LeftOut, RecordFault
from relvlm.data.sources.fields import as_text
from relvlm.data.sources.item import Item, Size
from relvlm.data.sources.meter import Meter
from relvlm.data.sources.raw import PhotoFault
from relvlm.errors import UserError

EPILOG = """example:
  relvlm data build parquet --files data/train-*.parquet --image image --captions caption --out data/mine
"""


def pyarrow_parquet() -> Any:
    """The module `pyarrow.parquet`; raises UserError where it is not installed."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise UserError("parquet files need pyarrow, which is not installed (run: pip install pyarrow)") from error
    return pyarrow.parquet


class CellPhoto(NamedTuple):
    """The bytes in a row of an image column."""

    name: str
    file: Path
    group: int
    row: int  # within its group
    column: str

    def is_there(self) -> bool:
        return True

    def read(self) -> bytes:
        cell = image_column(self.file, self.group, self.column)[self.row].as_py()
        data = cell.get("bytes") if isinstance(cell, dict) else cell
        if not isinstance(data, bytes):
            raise PhotoFault(self.name, "no bytes in its row")
        return data


@lru_cache(maxsize=1)
def image_column(file: Path, group: int, column: str) -> Any:
    """The images of a row group, kept until another is asked for: a shard's rows lie side by side."""
    with pyarrow_parquet().ParquetFile(file) as parquet:
        return parquet.read_row_group(group, columns=[column], use_threads=False).column(column).combine_chunks()


@dataclass(frozen=True)
class Parquet:
    """Every row of the files with a caption."""

    paths: tuple[Path, ...]
    image: str
    captions: str
    name: str = "parquet"
    hint: str = "check --image"

    def files(self) -> tuple[Path, ...]:
        return self.paths

    def arguments(self) -> dict[str, Any]:
        columns = {"image": self.image, "captions": self.captions}
        return {"files": len(self.paths), "first": self.paths[0].name, **columns, "source": self.name}

    def places(self) -> str:
        return f"{len(self.paths)} files"

    def items(self, faults: Faults, meter: Meter) -> Iterator[Item]:
        for path in self.paths:  # read without threads, since workers are forks
            try:
                yield from self._of_file(path, faults, meter)
            except (OSError, ValueError) as error:  # pyarrow's errors are of these two
                if isinstance(error, UserError):
                    raise
                raise UserError(f"{path}: cannot be read: {error} (download it again)") from error

    def _of_file(self, path: Path, faults: Faults, meter: Meter) -> Iterator[Item]:
        with pyarrow_parquet().ParquetFile(path) as parquet:
            for column in (self.image, self.captions):
                if column not in parquet.schema_arrow.names:
                    raise UserError(f"{path}: no column {column!r} (it has {', '.join(parquet.schema_arrow.names)})")
            meter.total += path.stat().st_size
            for group in range(parquet.num_row_groups):
                texts = parquet.read_row_group(group, columns=[self.captions], use_threads=False)
                cells = texts.column(self.captions).to_pylist()
                numbered = ((row, (path, group, row, cell)) for row, cell in enumerate(cells))
                yield from faults.sound("image", numbered, self._item, f"{path.name}: row group {group}")
            meter.done += path.stat().st_size

    def _item(self, found: tuple[Path, int, int, Any]) -> Item:
        path, group, row, cell = found
        captions = captions_of(cell)
        key = f"{path.stem}-{group:04d}-{row:06d}"
        return Item(key, key, CellPhoto(key, path, group, row, self.image), captions)

    def sample(self, item: Item, size: Size, faults: Faults) -> Sample:
        return Sample(item.image_id, *size, self.name, item.record)


def captions_of(cell: Any) -> tuple[str, ...]:
    """A text, or a list of texts, with single spaces; raises RecordFault for anything else, LeftOut for none."""
    if cell is None:
        raise RecordFault("caption: missing")
    texts = (" ".join(as_text(text, "caption").split()) for text in (cell if isinstance(cell, list) else [cell]))
    captions = tuple(text for text in texts if text)
    if not captions:
        raise LeftOut("caption: empty")
    return captions


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `relvlm data build parquet`."""
    parser.description = "Build a shard set of parquet files with images and captions (needs pyarrow)."
    parser.epilog = EPILOG
    parser.add_argument("--files", type=Path, nargs="+", required=True, metavar="FILE", help="in this order")
    parser.add_argument("--image", default="image", metavar="COLUMN", help="bytes, or {bytes, path} (image)")
    parser.add_argument("--captions", default="caption", metavar="COLUMN", help="a text, or a list of them (caption)")
    parser.add_argument("--source", default="parquet", metavar="NAME", help="what the samples say they are of")
    add_output_arguments(parser)


def main(args: argparse.Namespace) -> int:
    """Run the command; returns the exit status."""
    pyarrow_parquet()
    missing = [str(path) for path in args.files if not path.is_file()]
    if missing:
        raise UserError(f"{missing[0]}: no such file (check --files)")
    (name, times), *_ = Counter(path.stem for path in args.files).most_common(1)
    if times > 1:
        raise UserError(f"--files: {name}.parquet is there twice (rename one: names keep their images' ids apart)")
    return build_and_report(Parquet(tuple(args.files), args.image, args.captions, args.source), args)
