"""VisMin (Awal et al., NeurIPS 2024): two photos and two captions that differ in one thing, in Winoground's form.

The benchmark (Hugging Face, mair-lab/vismin-bench; rules in github.com/rabiulcste/vismin, vismin-bench/metric.py) is a
table of text_0, text_1, image_0, image_1 and category: here one line of JSON a row, the photos beside it as files. In
about half of its rows text_0 is the caption of image_1: which is whose, `sim_solution.csv` alone says (idx, Text,
Image, category; its rows in the order of the benchmark's), so it must lie beside the lines.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from relvlm.errors import UserError
from relvlm.evals.figures.main_table import Column
from relvlm.evals.files import Row, annotation_files, read_csv
from relvlm.evals.tasks.pairs import Benchmark, Example
from relvlm.evals.tasks.quads import Texts, quad, quad_task, tag_of
from relvlm.evals.tasks.records import Record, lines

KIND = "VisMin"
FIELDS = ("text_0", "text_1", "image_0", "image_1", "category")
SOLUTION = "sim_solution.csv"
# What Text says of the four scores: that text_0 is the caption of image_0, or that of image_1.
CROSSED = {"T0_I0 > T1_I0 & T1_I1 > T0_I1": False, "T1_I0 > T0_I0 & T0_I1 > T1_I1": True}


def load(annotations: Path) -> Benchmark:
    """Examples of the JSONL file, each caption put to its own photo."""
    files = annotation_files(annotations, "vismin", (".jsonl",))
    if len(files) > 1:
        raise UserError(f"{annotations}: {len(files)} files (give one)")
    records = lines(files[0], KIND, FIELDS)
    shown = [Shown.of(record) for record in records]
    solution = _solution(files[0].with_name(SOLUTION), len(records))
    return Benchmark(tuple(_example(i, *each) for i, each in enumerate(zip(shown, solution, strict=True))))


@dataclass(frozen=True)
class Shown:
    """An example as it is shown: texts in any order."""

    texts: Texts
    images: Texts
    tag: Row

    @classmethod
    def of(cls, record: Record) -> Shown:
        texts = (record.text("text_0"), record.text("text_1"))
        return cls(texts, (record.image("image_0"), record.image("image_1")), tag_of(record, "category"))


def _example(number: int, shown: Shown, answer: Record) -> Example:
    """Each caption with its own photo; UserError where the solution is of another example."""
    text, category = answer.text("Text"), shown.tag.get("collapsed_tag")
    if text not in CROSSED:
        raise answer.error("Text", f"{text!r} is none of {', '.join(CROSSED)}")
    if category is not None and answer.has("category") and answer.text("category") != category:
        raise answer.error("category", f"{answer.text('category')}, the example's is {category}")
    captions = shown.texts[::-1] if CROSSED[text] else shown.texts
    return quad(str(number), captions, shown.images, shown.tag)


def _solution(path: Path, count: int) -> list[Record]:
    if not path.is_file():
        raise UserError(f"{path}: no such file (it says which caption is whose: take the benchmark's)")
    found = [Record(row, f"{path}: row {i}", "solution") for i, row in enumerate(read_csv(path))]
    if len(found) != count:
        raise UserError(f"{path}: {len(found)} rows, the examples are {count} (give both of one release)")
    return found


TASK = quad_task("vismin", load, Column("VisMin group", 76, "fine"))
