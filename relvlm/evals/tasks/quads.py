"""Winoground's form: two captions and two images, each caption true of one of them. Its three scores are the rule.

Thrush et al., CVPR 2022; ColorSwap, VisMin and COLA have the same form.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache, partial
from itertools import permutations
from pathlib import Path

from relvlm.errors import UserError
from relvlm.evals.figures import shares
from relvlm.evals.figures.main_table import Cell, Column, overall_cell
from relvlm.evals.files import RESERVED, Row
from relvlm.evals.images import DataSet
from relvlm.evals.tasks import verdict
from relvlm.evals.tasks.pairs import Benchmark, Example, Pair, PairTask
from relvlm.evals.tasks.records import Record
from relvlm.evals.tasks.task import Card
from relvlm.evals.tasks.verdict import Verdict

CELLS = ("c0_i0", "c0_i1", "c1_i0", "c1_i1")  # caption and image
SCORES = ("text", "image", "group")
RULE = "text: each image prefers its caption; image: each caption its image; group: both; strictly; overall is"
Texts = tuple[str, str]


def quad(identity: str, captions: Texts, images: Texts, fields: Row | None = None) -> Example:
    """The four pairs of an example; caption i is that of image i."""
    return tuple(
        Pair(images[i], captions[c], {"label": f"{identity}_c{c}_i{i}", **(fields or {})})
        for c in (0, 1)
        for i in (0, 1)
    )


def tag_of(record: Record, field: str) -> Row:
    """What an example is tagged with, where it is; UserError for a tag called like a figure."""
    tag = {"collapsed_tag": record.text(field)} if record.has(field) else {}
    if set(tag.values()) & RESERVED:
        raise record.error(field, f"{tag['collapsed_tag']!r} is the name of a figure")
    return tag


def check_identities(identities: Iterable[str], path: Path) -> None:
    """Raises UserError where two examples have one id."""
    name, times = Counter(identities).most_common(1)[0]
    if times > 1:
        raise UserError(f"{path}: id: not unique, {name} occurs {times} times (each example needs its own)")


def won(quad: Mapping[str, float]) -> dict[str, bool]:
    """Of the four scores of an example; a tie is a loss."""
    text = quad["c0_i0"] > quad["c1_i0"] and quad["c1_i1"] > quad["c0_i1"]
    image = quad["c0_i0"] > quad["c0_i1"] and quad["c1_i1"] > quad["c1_i0"]
    return {"text": text, "image": image, "group": text and image}


def verdicts(rows: Sequence[Row], main: str = "group") -> list[Verdict]:
    """Whether each example's text, image and group score is won; `main` is the one that makes it right."""
    return [_verdict(identity, quad, main) for identity, quad in _quads(rows).items()]


def figures(judged: Sequence[Verdict]) -> Row:
    """Text, image and group score, over all and per tag where rows have `collapsed_tag`; overall is the main one."""
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


def quad_task(
    name: str,
    load: Callable[[Path], Benchmark],
    column: Column,
    main: str = "group",
    data_sets: tuple[DataSet, ...] = (),
) -> PairTask:
    """A benchmark of this form; `main`: the score that is its `overall`."""

    def table(found: Row) -> dict[str, Cell]:
        return {column.title: overall_cell(found, found["chance"][main])}

    return PairTask(
        name,
        load,
        partial(verdicts, main=main),
        figures,
        (column,),
        key=("label",),
        label=".+_c[01]_i[01]",
        rule=f"{RULE} {main}",
        table=table,
        data_sets=data_sets,
    )


def _scores(judged: Sequence[Verdict]) -> Row:
    found = verdict.flags(judged)
    return {**{name: shares.share(found[name]) for name in SCORES}, "n": len(judged)}


def _verdict(identity: str, quad: Mapping[str, Row], main: str) -> Verdict:
    first = quad["c0_i0"]
    tag, right = first.get("collapsed_tag"), won({cell: quad[cell]["score"] for cell in CELLS})
    marks: dict[str, bool] = {}
    for name, flag in right.items():
        marks |= {name: flag} | ({f"{tag}/{name}": flag} if tag else {})
    marks["overall"] = right[main]
    shown = [
        (f"{side}:", quad[cell].get("text", ""), quad[cell]["score"])
        for cell, side in zip(CELLS, ("left", "right", "left", "right"), strict=True)
    ]
    images = tuple(quad[cell].get("image", "") for cell in CELLS[:2])
    what = ", ".join(f"{name} {'right' if right[name] else 'wrong'}" for name in SCORES[:2])
    card = Card(images, tuple(shown), right[main], tag or "", what)
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
