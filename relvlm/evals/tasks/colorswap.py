"""ColorSwap (Burapacheep et al., Findings of ACL 2024): the colours of two captions exchanged, in Winoground's form.

File (github.com/Top34051/colorswap): `test.json`, a list of {id, caption_1, caption_2, image_1, image_2, ...}.
"""

from __future__ import annotations

from pathlib import Path

from relvlm.errors import UserError
from relvlm.evals.figures.main_table import Column
from relvlm.evals.files import annotation_files
from relvlm.evals.tasks.pairs import Benchmark, Example
from relvlm.evals.tasks.quads import check_identities, quad, quad_task
from relvlm.evals.tasks.records import Record, listed

KIND = "ColorSwap"
FIELDS = ("id", "caption_1", "caption_2", "image_1", "image_2")


def load(annotations: Path) -> Benchmark:
    """Examples of one file: train and test are not scored together."""
    files = annotation_files(annotations, "colorswap", (".json",))
    if len(files) > 1:
        raise UserError(f"{annotations}: {len(files)} files (give test.json)")
    records = listed(files[0], KIND, FIELDS)
    examples = tuple(_example(record) for record in records)
    check_identities((record.identity("id") for record in records), files[0])
    return Benchmark(examples)


def _example(record: Record) -> Example:
    captions = (record.text("caption_1"), record.text("caption_2"))
    images = (record.image("image_1"), record.image("image_2"))
    return quad(record.identity("id"), captions, images)


TASK = quad_task("colorswap", load, Column("ColorSwap group", 72, "fine"))
