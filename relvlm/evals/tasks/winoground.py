"""Winoground (Thrush et al., CVPR 2022): two captions of the same words, two images."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import permutations
from pathlib import Path

from relvlm.errors import UserError
from relvlm.evals.figures import shares
from relvlm.evals.figures.main_table import Cell, Column, overall_cell
from relvlm.evals.files import Row, annotation_files
from relvlm.evals.tasks import verdict
from relvlm.evals.tasks.pairs import Benchmark, Example, Pair, PairTask
from relvlm.evals.tasks.records import Record, lines
from relvlm.evals.tasks.task import Card
from relvlm.evals.tasks.verdict import Verdict

KIND = "Winoground"
FIELDS = ("id", "caption_0", "caption_1", "image_0", "image_1", "collapsed_tag")
CELLS = ("c0_i0", "c0_i1", "c1_i0", "c1_i1")  # caption and image
SCORES = ("text", "image", "group")
COLUMN = Column("Winoground group", 70, "fine")


def load(annotations: Path) -> Benchmark:
    """Examples of `examples.jsonl` (id, caption_0/1, image_0/1, collapsed_tag)."""
    files = annotation_files(annotations, "winoground", (".jsonl",))
    if len(files) > 1:
        raise UserError(f"{annotations}: {len(files)} files (give examples.jsonl)")
    records = lines(files[0], KIND, FIELDS)
    examples = tuple(_example(record) for record in records)
    if len({record.identity("id") for record in records}) != len(records):
        raise UserError(f"{files[0]}: id: not unique (each example needs its own)")
    return Benchmark(examples)


def verdicts(rows: Sequence[Row]) -> list[Verdict]:
    """Whether each example's text, image and group score is won."""
    return [_verdict(identity, quad) for identity, quad in _quads(rows).items()]


def won(quad: Mapping[str, float]) -> dict[str, bool]:
    """Of the four scores of an example; a tie is a loss."""
    text = quad["c0_i0"] > quad["c1_i0"] and quad["c1_i1"] > quad["c0_i1"]
    image = quad["c0_i0"] > quad["c0_i1"] and quad["c1_i1"] > quad["c1_i0"]
    return {"text": text, "image": image, "group": text and image}


def figures(judged: Sequence[Verdict]) -> Row:
    """Text, image and group score, over all and per tag where rows have `collapsed_tag`; overall is the group's."""
    tags: dict[str, list[Verdict]] = defaultdict(list)
    for each in judged:
        if each.card.piece:
            tags[each.card.piece].append(each)
    found = verdict.flags(judged)
    return {
        "overall": shares.share(found["overall"]),
        **_scores(judged),
        "interval95": shares.interval95(found["overall"]),
        **{tag: _scores(part) for tag, part in tags.items()},
        "chance": chance(),
    }


@lru_cache(maxsize=1)
def chance() -> dict[str, float]:
    """Percent of the orders of four different scores in which each is won."""
    orders = [won(dict(zip(CELLS, order, strict=True))) for order in permutations(range(len(CELLS)))]
    return {name: shares.share([each[name] for each in orders]) for name in SCORES}


def table(found: Row) -> dict[str, Cell]:
    """The group score."""
    return {COLUMN.title: overall_cell(found, found["chance"]["group"])}


def _scores(judged: Sequence[Verdict]) -> Row:
    found = verdict.flags(judged)
    return {**{name: shares.share(found[name]) for name in SCORES}, "n": len(judged)}


def _verdict(identity: str, quad: Mapping[str, Row]) -> Verdict:
    first = quad["c0_i0"]
    tag, right = first.get("collapsed_tag"), won({cell: quad[cell]["score"] for cell in CELLS})
    marks: dict[str, bool] = {}
    for name, flag in right.items():
        marks |= {name: flag} | ({f"{tag}/{name}": flag} if tag else {})
    marks["overall"] = right["group"]
    shown = [
        (f"{side}:", quad[cell].get("text", ""), quad[cell]["score"])
        for cell, side in zip(CELLS, ("left", "right", "left", "right"), strict=True)
    ]
    images = tuple(quad[cell].get("image", "") for cell in CELLS[:2])
    what = ", ".join(f"{name} {'right' if right[name] else 'wrong'}" for name in SCORES[:2])
    card = Card(images, tuple(shown), right["group"], tag or "", what)
    return Verdict(identity, tuple(quad[cell] for cell in CELLS), marks, card)


def _quads(rows: Sequence[Row]) -> dict[str, dict[str, Row]]:
    """The four rows of each example; UserError for another label, and where one is absent."""
    quads: dict[str, dict[str, Row]] = defaultdict(dict)
    for row in rows:
        label = str(row.get("label", ""))
        identity, cell = label[: -len(CELLS[0]) - 1], label[-len(CELLS[0]) :]
        if cell not in CELLS or label != f"{identity}_{cell}" or not identity:
            raise UserError(f"scores: label: {row.get('label')!r} is no <id>_c0_i0 (scores of another task?)")
        quads[identity][cell] = row
    for identity, quad in quads.items():
        absent = [cell for cell in CELLS if cell not in quad]
        if absent:
            raise UserError(f"scores: {identity}_{absent[0]}: absent (score all four of an example)")
    return quads


def _example(record: Record) -> Example:
    tag = {"collapsed_tag": record.text("collapsed_tag")} if record.has("collapsed_tag") else {}
    identity = record.identity("id")
    return tuple(
        Pair(record.image(f"image_{i}"), record.text(f"caption_{c}"), {"label": f"{identity}_c{c}_i{i}", **tag})
        for c in (0, 1)
        for i in (0, 1)
    )


TASK = PairTask(
    "winoground",
    load,
    verdicts,
    figures,
    (COLUMN,),
    key=("label",),
    label=".+_c[01]_i[01]",
    rule="text: each image prefers its caption; image: each caption its image; group: both; strictly; overall is group",
    table=table,
    data_sets=(),
)
