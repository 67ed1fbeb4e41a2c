"""Visual Spatial Reasoning (Liu et al., TACL 2023): is the caption's spatial relation true of the photo?"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from relvlm.errors import UserError
from relvlm.evals.figures import shares as m
from relvlm.evals.files import Row, annotation_files, piece_name, read_jsonl, require
from relvlm.evals.tasks.task import Benchmark, Example, Pair, Task, held_out

KIND = "VSR"
# The seven meta-categories of VSR's paper (its table of 66 relations).
RELATIONS = {
    "adjacency": (
        "adjacent to, alongside, at the side of, at the right side of, at the left side of, attached to, "
        "at the back of, ahead of, against, at the edge of"
    ),
    "directional": (
        "off, past, toward, down, deep down, up, away from, along, around, from, into, to, across, across from, "
        "through, down from"
    ),
    "orientation": "facing, facing away from, parallel to, perpendicular to",
    "projective": (
        "on top of, beneath, beside, behind, left of, right of, under, in front of, below, above, over, "
        "in the middle of"
    ),
    "proximity": "by, close to, near, far from, far away from",
    "topological": (
        "connected to, detached from, has as a part, part of, contains, within, at, on, in, with, surrounding, "
        "among, consists of, out of, between, inside, outside, touching"
    ),
    "unallocated": "beyond, next to, opposite to, after, enclosed by",
}
CATEGORY = {r: name for name, relations in RELATIONS.items() for r in relations.split(", ")}


def load(annotations: Path) -> Benchmark:
    """Pairs of a JSONL file, or of every one in a folder (then `split` tells them apart)."""
    files = annotation_files(annotations, "vsr", (".jsonl",))
    return Benchmark(tuple(example for file in files for example in _examples(file)))


def metrics(rows: Sequence[Row]) -> Row:
    """Accuracy at the protocol's threshold .5, per category and per split, and the calibrated ones beside it."""
    for row in rows:
        require(row, ("label", "score", "relation"), "scores", f"{KIND} score")
    figures = _accuracy(rows)
    unlisted = Counter(row["relation"] for row in rows if row["relation"] not in CATEGORY)
    if unlisted:
        figures["relations_counted_as_unallocated"] = dict(unlisted)
    splits = by_split(rows)
    if splits:
        figures["by_split"] = {name: _accuracy(part) for name, part in splits.items()}
        figures.update(_dev_calibrated(splits))
    return figures


def _accuracy(rows: Sequence[Row]) -> Row:
    scores, labels = _columns(rows)
    right = m.thresholded(scores, labels)
    groups: dict[str, list[bool]] = defaultdict(list)
    for row, flag in zip(rows, right, strict=True):
        groups[CATEGORY.get(row["relation"], "unallocated")].append(flag)
    threshold = m.median_threshold(scores)
    calibrated = m.thresholded(scores, labels, threshold)
    figures: Row = m.accuracy(right, dict(sorted(groups.items())))
    figures["calibrated_at_median"] = m.percent(sum(calibrated), len(calibrated))
    figures["calibrated_at_median_interval95"] = list(m.wilson(sum(calibrated), len(calibrated)))
    figures["median_threshold"] = threshold
    figures["called_true"] = m.percent(sum(s >= 0.5 for s in scores), len(scores))
    figures["chance"] = 50.0
    figures |= m.held_out(right, rows)
    return figures


def _dev_calibrated(splits: dict[str, list[Row]]) -> Row:
    """Test accuracy at the threshold that is best on dev; nothing where one of the two is absent."""
    threshold = dev_threshold(splits)
    if threshold is None:
        return {}
    right = m.thresholded(*_columns(splits["test"]), threshold)
    return {
        "test_at_dev_threshold": m.percent(sum(right), len(right)),
        "test_at_dev_threshold_interval95": list(m.wilson(sum(right), len(right))),
        "dev_threshold": threshold,
    }


def dev_threshold(splits: dict[str, list[Row]]) -> float | None:
    """The threshold that is best on dev; None where there is no dev or no test to use it on."""
    if not {"dev", "test"} <= splits.keys():
        return None
    return m.best_threshold(*_columns(splits["dev"]))


def _columns(rows: Sequence[Row]) -> tuple[list[float], list[bool]]:
    return [row["score"] for row in rows], [row["label"] == 1 for row in rows]


def calibrated(rows: Sequence[Row]) -> float:
    """The threshold that calls half of the rows true."""
    return m.median_threshold([row["score"] for row in rows])


def by_split(rows: Sequence[Row]) -> dict[str, list[Row]]:
    splits: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if "split" in row:
            splits[row["split"]].append(row)
    return dict(splits)


def _examples(file: Path) -> list[Example]:
    examples: list[Example] = []
    for number, row in enumerate(read_jsonl(file)):
        where = f"{file}: row {number}"
        require(row, ("image", "caption", "label", "relation"), where, KIND)
        if row["label"] not in (0, 1):
            raise UserError(f"{where}: label: {row['label']!r} is neither 0 nor 1")
        fields = {
            "label": row["label"],
            "relation": row["relation"],
            "id": number,
            "split": piece_name(file, "vsr"),
            **held_out(row),
        }
        examples.append((Pair(str(row["image"]), str(row["caption"]), fields),))
    return examples


TASK = Task(
    "vsr",
    load,
    metrics,
    key=("split", "id"),
    label="[01]",
    rule="right if the match probability is >= .5 where the label is 1, < .5 where it is 0",
    group="split",
    thresholded=("overall",),
)
