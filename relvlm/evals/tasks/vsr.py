"""Visual Spatial Reasoning (Liu et al., TACL 2023): is the caption's spatial relation true of the photo?"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from relvlm.evals.figures import shares
from relvlm.evals.figures.main_table import Cell, Column, both, overall_cell
from relvlm.evals.files import Row, annotation_files, piece_name, require
from relvlm.evals.images import COCO
from relvlm.evals.tasks import verdict
from relvlm.evals.tasks.pairs import Benchmark, Example, Pair, PairTask
from relvlm.evals.tasks.records import Record, lines
from relvlm.evals.tasks.task import Card
from relvlm.evals.tasks.verdict import Verdict, held_out

log = logging.getLogger(__name__)

KIND = "VSR"
FIELDS = ("image", "caption", "label", "relation", "held_out")
THRESHOLD = 0.5  # the protocol's
AT_MEDIAN, AT_DEV = "calibrated_at_median", "test_at_dev_threshold"
TITLES = ("VSR", "VSR dev", "VSR test")
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


@dataclass(frozen=True)
class Thresholds:
    """That call half of all rows true, half of each split's; and the best on dev, where there are dev and test."""

    whole: float
    splits: dict[str, float]
    dev: float | None


def load(annotations: Path) -> Benchmark:
    """Pairs of a JSONL file, or of every one in a folder (then `split` tells them apart).

    A training split beside others is scored, and told apart, but is in no figure of them all.
    """
    files = annotation_files(annotations, "vsr", (".jsonl",))
    aside = _aside(piece_name(file, "vsr") for file in files)
    if aside:
        shown = ", ".join(sorted(aside))
        log.warning("%s: %s: training, so in no figure but its own (give the file to score)", annotations, shown)
    return Benchmark(tuple(example for file in files for example in _examples(file)))


def verdicts(rows: Sequence[Row]) -> list[Verdict]:
    """Right at the protocol's threshold; the calibrated figures are at those of all rows, or of all of dev."""
    for row in rows:
        require(row, ("label", "score", "relation"), "scores", f"{KIND} score")
    found, aside = thresholds(rows), _aside(row.get("split") for row in rows)
    return [_verdict(i, row, found, row.get("split") in aside) for i, row in enumerate(rows)]


def figures(judged: Sequence[Verdict]) -> Row:
    """Accuracy at the protocol's threshold .5, per category and per split, and the calibrated ones beside it."""
    found = thresholds([v.rows[0] for v in judged])
    counted = [v for v in judged if "overall" in v.marks]
    result = _accuracy(counted, found.whole)
    relations = (v.rows[0]["relation"] for v in counted)
    unlisted = Counter(relation for relation in relations if relation not in CATEGORY)
    if unlisted:
        result["relations_counted_as_unallocated"] = dict(unlisted)
    splits: dict[str, list[Verdict]] = {name: [] for name in found.splits}
    for each in judged:
        if each.rows[0].get("split") is not None:
            splits[each.rows[0]["split"]].append(each)
    if splits:
        parts = {name: _accuracy(part, found.splits[name], f"{name}/") for name, part in splits.items()}
        result |= {"by_split": parts, **_at_dev_threshold(judged, found.dev)}
    return result


def thresholds(rows: Sequence[Row]) -> Thresholds:
    """Of the scores; labels are seen in dev alone."""
    splits: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row.get("split") is not None:
            splits[row["split"]].append(row)
    medians = {name: shares.median_threshold(_scores(part)) for name, part in splits.items()}
    dev = None
    if {"dev", "test"} <= splits.keys():
        dev = shares.best_threshold(_scores(splits["dev"]), [_is_true(row) for row in splits["dev"]])
    aside = _aside(splits)
    counted = [row for row in rows if row.get("split") not in aside]
    return Thresholds(shares.median_threshold(_scores(counted)), medians, dev)


def table(found: Row) -> dict[str, Cell]:
    """Dev and test where the files were told apart, else one column for the set (`VSR test`).

    Files of several releases (`random_dev`, `zeroshot_test`) have no one dev and test: `VSR` is all their rows.
    """
    parts = found.get("by_split", {"test": found})
    if len({name.rpartition("_")[0] for name in parts}) > 1:
        return _cells("VSR", found)
    cells: dict[str, Cell] = {}
    for name, part in parts.items():
        title = f"VSR {name.rpartition('_')[-1]}"
        if title in TITLES:
            cells |= _cells(title, part, f"{name}/" if "by_split" in found else "")
    return cells


def _aside(splits: Iterable[str | None]) -> set[str]:
    """The training splits, where there are others beside them."""
    names = set(splits)
    training = {name for name in names if name is not None and name.rpartition("_")[2] == "train"}
    return training if training < names else set()


def _verdict(number: int, row: Row, found: Thresholds, aside: bool) -> Verdict:
    def agrees(threshold: float) -> bool:
        return shares.agrees(row["score"], _is_true(row), threshold)

    split, right, category = row.get("split"), agrees(THRESHOLD), CATEGORY.get(row["relation"], "unallocated")
    counted = verdict.names(row, category)
    of_all = [] if aside else counted
    marks = dict.fromkeys(of_all + [f"{split}/{name}" for name in counted if split is not None], right)
    if not aside:
        marks["called_true"] = shares.agrees(row["score"], True, THRESHOLD)
        marks[AT_MEDIAN] = agrees(found.whole)
    if split is not None:
        marks[f"{split}/{AT_MEDIAN}"] = agrees(found.splits[split])
    if split == "test" and found.dev is not None:
        marks[AT_DEV] = agrees(found.dev)
    line = ("true:" if _is_true(row) else "false:", row.get("text", ""), row["score"])
    card = Card((row.get("image", ""),), (line,), right, category, row["relation"], relation=row["relation"])
    return Verdict(f"{split} {row.get('id', number)}", (row,), marks, card)


def _accuracy(judged: Sequence[Verdict], threshold: float, prefix: str = "") -> Row:
    """Figures of all rows, or of a split whose marks begin with `prefix`."""
    found = verdict.flags(judged)
    at_median = found[prefix + AT_MEDIAN]
    return {
        **shares.accuracy(found[f"{prefix}overall"], dict(sorted(verdict.groups(judged).items()))),
        AT_MEDIAN: shares.share(at_median),
        f"{AT_MEDIAN}_interval95": shares.interval95(at_median),
        "median_threshold": threshold,
        "called_true": shares.share([shares.agrees(v.rows[0]["score"], True, THRESHOLD) for v in judged]),
        "chance": verdict.chance(judged),
        **verdict.held_out_accuracy(found, prefix),
    }


def _at_dev_threshold(judged: Sequence[Verdict], threshold: float | None) -> Row:
    """Test accuracy at the threshold that is best on dev; nothing where one of the two is absent."""
    if threshold is None:
        return {}
    right = verdict.flags(judged)[AT_DEV]
    found = {AT_DEV: shares.share(right), f"{AT_DEV}_interval95": shares.interval95(right)}
    return {**found, "dev_threshold": threshold}


def _cells(title: str, part: Row, prefix: str = "") -> dict[str, Cell]:
    """Accuracy at the protocol's threshold, and at the median score."""
    interval = both(part[f"{AT_MEDIAN}_interval95"])
    calibrated = Cell(part[AT_MEDIAN], interval, part["chance"], part["n"], prefix + AT_MEDIAN)
    return {title: overall_cell(part, part["chance"], prefix), f"{title}, calibrated": calibrated}


def _scores(rows: Sequence[Row]) -> list[float]:
    return [row["score"] for row in rows]


def _is_true(row: Row) -> bool:
    return Record(row, "scores", f"{KIND} score").flag("label")


def _examples(file: Path) -> list[Example]:
    split = piece_name(file, "vsr")
    return [(_pair(number, record, split),) for number, record in enumerate(lines(file, KIND, FIELDS))]


def _pair(number: int, record: Record, split: str) -> Pair:
    label, relation = int(record.flag("label")), record.text("relation")
    fields = {"label": label, "relation": relation, "id": number, "split": split, **held_out(record.row, record.where)}
    return Pair(record.image("image"), record.text("caption"), fields)


TASK = PairTask(
    "vsr",
    load,
    verdicts,
    figures,
    (
        *(Column(title, 0, "fine") for title in TITLES),
        *(Column(f"{title}, calibrated", 200, over_steps=False) for title in TITLES),
    ),
    key=("split", "id"),
    label="[01]",
    rule="right if the match probability is >= .5 where the label is 1, < .5 where it is 0",
    group="split",
    thresholded=("overall",),
    table=table,
    data_sets=(COCO,),
)
