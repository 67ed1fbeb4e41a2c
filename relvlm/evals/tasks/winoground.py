"""Winoground (Thrush et al., CVPR 2022): two captions of the same words, two images."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from relvlm.errors import UserError
from relvlm.evals.figures import shares as m
from relvlm.evals.files import Row, annotation_files, read_jsonl, require
from relvlm.evals.tasks.task import Benchmark, Example, Pair, Task

KIND = "Winoground"
CELLS = ("c0_i0", "c0_i1", "c1_i0", "c1_i1")
CHANCE = {"text": 25.0, "image": 25.0, "group": 100 / 6}


def load(annotations: Path) -> Benchmark:
    """Examples of `examples.jsonl` (id, caption_0/1, image_0/1, collapsed_tag)."""
    files = annotation_files(annotations, "winoground", (".jsonl",))
    if len(files) > 1:
        raise UserError(f"{annotations}: {len(files)} files (give examples.jsonl)")
    rows = list(read_jsonl(files[0]))
    examples = tuple(_example(row, f"{files[0]}: row {i}") for i, row in enumerate(rows))
    if len({row["id"] for row in rows}) != len(rows):
        raise UserError(f"{files[0]}: id: not unique (each example needs its own)")
    return Benchmark(examples)


def metrics(rows: Sequence[Row]) -> Row:
    """Text, image and group score, over all and per tag where rows have `collapsed_tag`; overall is the group's."""
    quads = _quads(rows)
    figures = _scores([scores for _, scores, _ in quads])
    group = round(figures["group"] * len(quads) / 100)
    figures = {"overall": figures["group"], **figures, "interval95": list(m.wilson(group, len(quads)))}
    tags: dict[str, list[dict[str, float]]] = defaultdict(list)
    for _, scores, tag in quads:
        if tag is not None:
            tags[tag].append(scores)
    return {**figures, **{tag: _scores(part) for tag, part in tags.items()}, "chance": CHANCE}


def outcomes(rows: Sequence[Row]) -> list[tuple[str, dict[str, bool], str | None]]:
    """Each example's id, whether its text, image and group score is won, and its tag."""
    return [(identity, won(cells), tag) for identity, cells, tag in _quads(rows)]


def won(quad: dict[str, float]) -> dict[str, bool]:
    """Of the four scores of an example; a tie is a loss."""
    text = quad["c0_i0"] > quad["c1_i0"] and quad["c1_i1"] > quad["c0_i1"]
    image = quad["c0_i0"] > quad["c0_i1"] and quad["c1_i1"] > quad["c1_i0"]
    return {"text": text, "image": image, "group": text and image}


def _scores(quads: Sequence[dict[str, float]]) -> Row:
    wins = [won(quad) for quad in quads]
    shares = {name: m.percent(sum(w[name] for w in wins), len(wins)) for name in ("text", "image", "group")}
    return {**shares, "n": len(quads)}


def _quads(rows: Sequence[Row]) -> list[tuple[str, dict[str, float], str | None]]:
    quads: dict[str, dict[str, float]] = defaultdict(dict)
    tags: dict[str, str | None] = {}
    for row in rows:
        identity, _, cell = str(row.get("label", "")).partition("_")
        if cell not in CELLS:
            raise UserError(f"scores: label: {row.get('label')!r} is no <id>_c0_i0 (scores of another task?)")
        quads[identity][cell] = row["score"]
        tags[identity] = row.get("collapsed_tag")
    for identity, cells in quads.items():
        if len(cells) != 4:
            absent = next(cell for cell in CELLS if cell not in cells)
            raise UserError(f"scores: {identity}_{absent}: absent (score all four of an example)")
    return [(identity, cells, tags[identity]) for identity, cells in quads.items()]


def _example(row: Row, where: str) -> Example:
    require(row, ("id", "caption_0", "caption_1", "image_0", "image_1"), where, KIND)
    tag = {"collapsed_tag": row["collapsed_tag"]} if "collapsed_tag" in row else {}
    return tuple(
        Pair(str(row[f"image_{i}"]), str(row[f"caption_{c}"]), {"label": f"{row['id']}_c{c}_i{i}", **tag})
        for c in (0, 1)
        for i in (0, 1)
    )


TASK = Task(
    "winoground",
    load,
    metrics,
    key=("label",),
    label=".+_c[01]_i[01]",
    rule="text: each image prefers its caption; image: each caption its image; group: both; strictly; overall is group",
)
