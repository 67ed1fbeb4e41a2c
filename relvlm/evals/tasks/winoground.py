"""Winoground (Thrush et al., CVPR 2022): two captions of the same words, two images."""

from __future__ import annotations

from pathlib import Path

from relvlm.errors import UserError
from relvlm.evals.figures.main_table import Column
from relvlm.evals.files import annotation_files
from relvlm.evals.tasks.pairs import Benchmark, Example
from relvlm.evals.tasks.quads import check_identities, quad, quad_task, tag_of
from relvlm.evals.tasks.records import Record, lines

KIND = "Winoground"
FIELDS = ("id", "caption_0", "caption_1", "image_0", "image_1", "collapsed_tag")


def load(annotations: Path) -> Benchmark:
    """Examples of `examples.jsonl` (id, caption_0/1, image_0/1, collapsed_tag)."""
    files = annotation_files(annotations, "winoground", (".jsonl",))
    if len(files) > 1:
        raise UserError(f"{annotations}: {len(files)} files (give examples.jsonl)")
    records = lines(files[0], KIND, FIELDS)
    examples = tuple(_example(record) for record in records)
    check_identities((record.identity("id") for record in records), files[0])
    return Benchmark(examples)


def _example(record: Record) -> Example:
    captions = (record.text("caption_0"), record.text("caption_1"))
    images = (record.image("image_0"), record.image("image_1"))
    return quad(record.identity("id"), captions, images, tag_of(record, "collapsed_tag"))


TASK = quad_task("winoground", load, Column("Winoground group", 70, "fine"))
