"""COLA, multi-object matching (Ray et al., NeurIPS 2023): each of two captions must choose its own photo.

File (github.com/arijitray1993/COLA): a list of [photo's address, caption, photo's address, caption]. A photo is called
by the last part of its address, which is its Visual Genome id. Its rule is Winoground's image score.
"""

from __future__ import annotations

from pathlib import Path

from relvlm.errors import UserError
from relvlm.evals.figures.main_table import Column
from relvlm.evals.files import annotation_files
from relvlm.evals.images import VISUAL_GENOME
from relvlm.evals.tasks.pairs import Benchmark, Example
from relvlm.evals.tasks.quads import quad, quad_task
from relvlm.evals.tasks.records import Record, arrays

KIND = "COLA"
LENGTH = 4


def load(annotations: Path) -> Benchmark:
    """Examples of the file, or of the only one in a folder."""
    files = annotation_files(annotations, "cola", (".json",))
    if len(files) > 1:
        raise UserError(f"{annotations}: {len(files)} files (give the multi-object one)")
    return Benchmark(tuple(_example(i, record) for i, record in enumerate(arrays(files[0], KIND, LENGTH))))


def _example(number: int, record: Record) -> Example:
    return quad(str(number), (record.text("[1]"), record.text("[3]")), (_photo(record, "[0]"), _photo(record, "[2]")))


def _photo(record: Record, field: str) -> str:
    name = record.text(field).rpartition("/")[2]
    if name in ("", ".."):
        raise record.error(field, f"{record.text(field)!r} names no photo (give its address)")
    return name


TASK = quad_task("cola", load, Column("COLA", 74, "fine"), main="image", data_sets=(VISUAL_GENOME,))
