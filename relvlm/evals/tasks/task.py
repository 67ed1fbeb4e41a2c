"""What every pair-scoring benchmark gives: examples, each of one or more (image, text) pairs to score."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from relvlm.errors import UserError
from relvlm.evals.files import Row, find_image
from relvlm.evals.scoring.photos import CropBox


@dataclass(frozen=True)
class Pair:
    """One score to compute; `row` is what its line in scores.jsonl says beside `score`, `image` and `text`.

    `box`: the part of the image to score, (x0, y0, x1, y1) in pixels; None for all of it.
    """

    image: str
    text: str
    row: Row
    box: CropBox | None = None


Example = tuple[Pair, ...]


@dataclass(frozen=True)
class Benchmark:
    """Examples in file order; `dropped` holds the rows of examples that the protocol leaves out."""

    examples: tuple[Example, ...]
    dropped: tuple[Row, ...] = ()

    @property
    def pairs(self) -> list[Pair]:
        """All pairs, in order."""
        return [pair for example in self.examples for pair in example]


@dataclass(frozen=True)
class Task:
    """A pair-scoring benchmark: `load` its official files, `metrics` of its rows with scores.

    `key`: the fields that make a row unique. `label`: the pattern of its labels, which tells its score files from
    those of other tasks. `rule`: its protocol, in words. `group`: the field that tells its files (or splits) apart.
    `thresholded`: figures that need a probability; a task whose `overall` is among them is not for similarities.
    """

    name: str
    load: Callable[[Path], Benchmark]
    metrics: Callable[[Sequence[Row]], Row]
    key: tuple[str, ...]
    label: str
    rule: str
    group: str | None = None
    thresholded: tuple[str, ...] = ()


def held_out(record: Row) -> Row:
    """RelWorld's mark of a combination that training never shows, where the record has one."""
    if "held_out" not in record:
        return {}
    return {"held_out": str(record["held_out"]).lower() in ("true", "1")}


def locate(benchmark: Benchmark, images: Path) -> tuple[dict[str, Path], list[str]]:
    """File of each image name, and the names for which there is none."""
    names = dict.fromkeys(pair.image for pair in benchmark.pairs)
    found = {name: find_image(images, name) for name in names}
    return {n: p for n, p in found.items() if p}, [n for n, p in found.items() if not p]


def without(benchmark: Benchmark, missing: Sequence[str]) -> Benchmark:
    """The benchmark without the examples that need a missing image."""
    gone = set(missing)
    kept = tuple(e for e in benchmark.examples if not any(pair.image in gone for pair in e))
    return replace(benchmark, examples=kept)


def first(benchmark: Benchmark, limit: int, group: str | None) -> Benchmark:
    """The first `limit` examples of each file (all of one where the task has no files)."""
    seen: Counter[object] = Counter()
    kept = []
    for example in benchmark.examples:
        name = example[0].row.get(group) if group else None
        seen[name] += 1
        if seen[name] <= limit:
            kept.append(example)
    return replace(benchmark, examples=tuple(kept))


def check_scores(rows: Iterable[Row], key: Sequence[str], where: str, label: str = ".*") -> list[Row]:
    """The rows, each with a finite score, a key of its own and the task's label; UserError naming the line."""
    checked = list(rows)
    if not checked:
        raise UserError(f"{where}: no scores in it")
    fields = [f for f in key if all(f in row for row in checked)]
    seen: dict[tuple[object, ...], int] = {}
    for number, row in enumerate(checked, 1):
        check_score(row.get("score"), f"{where}: line {number}")
        if "label" in row and not re.fullmatch(label, _label(row["label"])):
            raise UserError(
                f"{where}: line {number}: label: {row['label']!r} (are these scores of another task?)"
            )
        identity = tuple(row[f] for f in fields)
        if fields and identity in seen:
            raise UserError(
                f"{where}: line {number}: {', '.join(map(str, identity))}: already on line {seen[identity]}"
                " (score each pair once)"
            )
        seen[identity] = number
    return checked


def check_score(score: object, where: str) -> None:
    """Raises UserError for what is no finite number."""
    if isinstance(score, bool) or not isinstance(score, (int, float)):
        raise UserError(f"{where}: score: {score!r} is no number (each line needs one)")
    if not math.isfinite(score):
        raise UserError(f"{where}: score: {score} (has the model diverged? score it again)")


def complete(rows: Sequence[Row], benchmark: Benchmark, key: Sequence[str], where: str) -> list[Row]:
    """Rows with the annotation's fields added, without those that the protocol drops.

    They are matched by the fields of `key` that the rows have. Raises UserError for a row that the annotations
    do not know, for a field that contradicts them, and for an annotation without a score.
    """
    fields = [f for f in key if all(f in row for row in rows)]
    known = _by_key((pair.row for pair in benchmark.pairs), fields, where)
    dropped = {tuple(row[f] for f in fields) for row in benchmark.dropped}
    result = []
    for row in rows:
        identity = tuple(row[f] for f in fields)
        if identity in known:
            result.append(_merge(known.pop(identity), row, where))
        elif identity not in dropped:
            raise UserError(f"{where}: {identity}: not in the annotations (give those that were scored)")
    if known:
        raise UserError(
            f"{where}: {len(known)} annotated pairs have no score, the first is {next(iter(known))}"
        )
    return result


def _by_key(rows: Iterable[Row], fields: Sequence[str], where: str) -> dict[tuple[object, ...], Row]:
    listed = list(rows)
    known = {tuple(row[f] for f in fields): row for row in listed}
    if len(known) != len(listed):
        raise UserError(
            f"{where}: rows with only {fields} fit several annotations (give one annotation file)"
        )
    return known


def _merge(annotation: Row, row: Row, where: str) -> Row:
    for field, value in annotation.items():
        if field in row and row[field] != value:
            raise UserError(
                f"{where}: {field}: {row[field]!r}, the annotations say {value!r} (give those that were scored)"
            )
    return {**annotation, **row}


def _label(value: object) -> str:
    """As a pattern reads it: other programs write VSR's 1 as true or 1.0."""
    return str(int(value)) if isinstance(value, (bool, float)) and value in (0, 1) else str(value)
