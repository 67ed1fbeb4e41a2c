"""Rows of a scores file, ours or another program's: each with a finite score, and what the annotations say of it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

from relvlm.errors import UserError
from relvlm.evals.files import Row
from relvlm.evals.tasks.records import Record

TEXTS = (
    *("image", "text", "piece", "instrument", "relation", "split", "collapsed_tag", "kind", "type"),
    *("pos_triplet", "neg_triplet", "set"),
)
NUMBERS = ("cosine", "text_cosine", "logit_and_cosine")  # that some tasks have beside the score
FLAGS = ("subj_neg", "verb_neg", "obj_neg")


def check_scores(rows: Iterable[Row], key: Sequence[str], where: str, label: str = ".*") -> list[Row]:
    """The rows without null fields, each with a finite score, a key of its own and the task's label.

    Raises UserError, naming the line.
    """
    checked = [{name: value for name, value in row.items() if value is not None} for row in rows]
    if not checked:
        raise UserError(f"{where}: no scores in it")
    for number, row in enumerate(checked, 1):
        _check_fields(row, f"{where}: line {number}")
        if "label" in row and not re.fullmatch(label, _label(row["label"])):
            raise UserError(f"{where}: line {number}: label: {row['label']!r} (are these scores of another task?)")
    check_keys(checked, key, where)
    return checked


def check_keys(rows: Sequence[Row], key: Sequence[str], where: str, what: str = "line") -> None:
    """Raises UserError where two rows have the same key: two records of one id, or a pair that is scored twice."""
    fields = [f for f in key if all(f in row for row in rows)]
    seen: dict[tuple[object, ...], int] = {}
    for number, row in enumerate(rows if fields else (), 1):
        identity = tuple(row[f] for f in fields)
        if identity in seen:
            raise UserError(
                f"{where}: {what} {number}: {', '.join(map(str, identity))}: already on {what} {seen[identity]}"
                " (give each once)"
            )
        seen[identity] = number


def _check_fields(row: Row, where: str) -> None:
    """Each field that a task may read has its type; other fields are nobody's."""
    check_score(row.get("score"), where)
    record = Record(row, where, "score")
    for field in (f for f in TEXTS if record.has(f)):
        record.text(field)
    for field in (f for f in ("id", "key") if record.has(f)):
        record.identity(field)
    for field in (f for f in (*FLAGS, "held_out") if record.has(f)):
        record.flag(field)
    for field in (f for f in NUMBERS if record.has(f)):
        check_score(row[field], where, field)
    if record.has("label") and not isinstance(row["label"], (str, int, float)):
        raise record.error("label", f"{row['label']!r} is neither a text nor a number")
    if record.has("box") and not _is_box(row["box"]):
        raise record.error("box", f"{row['box']!r} is no list of four whole numbers")


def _is_box(value: object) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(type(x) is int for x in value)


def check_score(score: object, where: str, field: str = "score") -> None:
    """Raises UserError for what is no finite number."""
    if isinstance(score, bool) or not isinstance(score, (int, float)):
        raise UserError(f"{where}: {field}: {score!r} is no number (each line needs one)")
    if not _is_finite(score):
        raise UserError(f"{where}: {field}: {score} (has the model diverged? score it again)")


def _is_finite(score: float) -> bool:
    try:
        return math.isfinite(score)
    except OverflowError:  # a whole number beyond all floats
        return False


def complete(
    rows: Sequence[Row], annotated: Sequence[Row], dropped: Sequence[Row], key: Sequence[str], where: str
) -> list[Row]:
    """Rows with the annotation's fields added, without those that the protocol drops.

    They are matched by the fields of `key` that the rows have. Raises UserError for a row that the annotations
    do not know, for a field that contradicts them, and for an annotation without a score.
    """
    fields = [f for f in key if all(f in row for row in rows)]
    known = _by_key(annotated, fields, where)
    left_out = {tuple(row[f] for f in fields) for row in dropped}
    result = []
    for row in rows:
        identity = tuple(row[f] for f in fields)
        if identity in known:
            result.append(_merge(known.pop(identity), row, where))
        elif identity not in left_out:
            raise UserError(f"{where}: {identity}: not in the annotations (give those that were scored)")
    if known:
        raise UserError(f"{where}: {len(known)} annotated pairs have no score, the first is {next(iter(known))}")
    return result


def _by_key(rows: Sequence[Row], fields: Sequence[str], where: str) -> dict[tuple[object, ...], Row]:
    known = {tuple(row[f] for f in fields): row for row in rows}
    if len(known) != len(rows):
        raise UserError(f"{where}: rows with only {fields} fit several annotations (give one annotation file)")
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
