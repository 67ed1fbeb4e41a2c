"""RefCOCO, RefCOCO+, RefCOCOg (Yu et al., 2016; Mao et al., 2016): the box that an expression means, by the box head.

Files: the splits in COCO's JSON that MDETR published (finetune_refcoco+_testA.json: `images` of file_name, width,
height, caption; `annotations` of image_id, bbox x, y, w, h), since the original ones are pickles, which run what is in
them. Right if the intersection over union with the true box is at least .5 (X-VLM, dataset/utils.py; for boxes of more
than a pixel its `computeIoU` is the common one).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from relvlm.errors import UserError
from relvlm.evals.figures import shares
from relvlm.evals.figures.main_table import Cell, Column, overall_cell
from relvlm.evals.files import Row, annotation_files, piece_name, require
from relvlm.evals.images import COCO
from relvlm.evals.scoring.boxes import overlaps, predicted_boxes
from relvlm.evals.scoring.scorer import Scorer
from relvlm.evals.tasks import verdict
from relvlm.evals.tasks.pairs import Benchmark, Example, Pair, PairTask
from relvlm.evals.tasks.records import Record, read_tree, records_of
from relvlm.evals.tasks.task import Card
from relvlm.evals.tasks.verdict import Verdict, held_out

log = logging.getLogger(__name__)

KIND = "RefCOCO"
FIELDS = ("file_name", "caption", "width", "height", "held_out")
THRESHOLD = 0.5  # of the intersection over union; the protocol's
COLUMN = Column("RefCOCO", 92)


def load(annotations: Path) -> Benchmark:
    """Examples of one split or of all in a folder, but for training ones beside others."""
    files = annotation_files(annotations, "finetune", (".json",))
    scored = [file for file in files if not file.stem.endswith("_train")] or files
    if len(scored) < len(files):
        log.warning("%s: training splits are not scored (give the file to score one)", annotations)
    return Benchmark(tuple(example for file in scored for example in _examples(file)))


def measured(scorer: Scorer, pairs: Sequence[Pair], paths: Mapping[str, Path]) -> tuple[list[Row], str]:
    """Rows with the predicted box in pixels; the score is its intersection over union with the true one."""
    sizes = [pair.row["size"] for pair in pairs]
    shares_G4 = predicted_boxes(scorer, [paths[p.image] for p in pairs], [p.text for p in pairs]).tolist()
    boxes = [[x0 * w, y0 * h, x1 * w, y1 * h] for (x0, y0, x1, y1), (w, h) in zip(shares_G4, sizes, strict=True)]
    scores = overlaps(boxes, [pair.row["target"] for pair in pairs])
    rows = [
        {**p.row, "predicted": [round(x, 2) for x in box], "score": score, "image": p.image, "text": p.text}
        for p, box, score in zip(pairs, boxes, scores, strict=True)
    ]
    return rows, "intersection over union"


def verdicts(rows: Sequence[Row]) -> list[Verdict]:
    """Right if the score, an intersection over union, is at least THRESHOLD."""
    for row in rows:
        require(row, ("piece", "label"), "scores", f"{KIND} score")
    return [_verdict(row) for row in rows]


def figures(judged: Sequence[Verdict]) -> Row:
    """Micro accuracy and each split's; `whole_photo`: that of the whole photo as the answer, in place of a chance."""
    found = verdict.flags(judged)
    whole = {"whole_photo": shares.share(found["whole_photo"])} if "whole_photo" in found else {}
    return {**verdict.accuracy(judged), **whole, "chance": None, **verdict.held_out_accuracy(found)}


def table(found: Row) -> dict[str, Cell]:
    """Accuracy; where others have chance, that of the whole photo."""
    return {COLUMN.title: overall_cell(found, found.get("whole_photo"))}


def _verdict(row: Row) -> Verdict:
    right = row["score"] >= THRESHOLD
    marks = dict.fromkeys(verdict.names(row, row["piece"]), right)
    if "target" in row and "size" in row:
        x0, y0, x1, y1 = Record(row, "scores", f"{KIND} score").numbers("target", 4)
        width, height = Record(row, "scores", f"{KIND} score").numbers("size", 2)
        marks["whole_photo"] = (x1 - x0) * (y1 - y0) >= THRESHOLD * width * height
    lines = (("IoU:", row.get("text", ""), row["score"]),)
    card = Card((row.get("image", ""),), lines, right, row["piece"], marks=tuple(_marks(row)))
    return Verdict(f"{row['piece']} {row['label']}", (row,), marks, card)


def _marks(row: Row) -> Iterator[tuple[str, tuple[float, float, float, float]]]:
    """The true box and the predicted one, as far as the row has them."""
    record = Record(row, "scores", f"{KIND} score")
    for name, field in (("true", "target"), ("predicted", "predicted")):
        if field in row and "size" in row:
            width, height = record.numbers("size", 2)
            x0, y0, x1, y1 = record.numbers(field, 4)
            yield name, (x0 / width, y0 / height, x1 / width, y1 / height)


def _examples(file: Path) -> list[Example]:
    tree, piece = read_tree(file, KIND), piece_name(file, "finetune")
    if not isinstance(tree, dict) or not {"images", "annotations"} <= tree.keys():
        raise UserError(f"{file}: no `images` and `annotations` in it, this is no {KIND} file (give MDETR's splits)")
    targets = _targets(tree["annotations"], file)
    return [_example(record, targets, piece) for record in records_of(tree["images"], file, KIND, FIELDS, "images")]


def _targets(annotations: Any, file: Path) -> dict[str, list[float]]:
    """The true box (x0, y0, x1, y1) of each expression's id."""
    found: dict[str, list[float]] = {}
    for record in records_of(annotations, file, KIND, ("image_id", "bbox"), "annotations"):
        x, y, w, h = record.numbers("bbox", 4)
        if w <= 0 or h <= 0:
            raise record.error("bbox", f"{w} x {h} (a box is wider and higher than nothing)")
        if record.identity("image_id") in found:
            raise record.error("image_id", f"{record.identity('image_id')} has a second box (each expression has one)")
        found[record.identity("image_id")] = [x, y, x + w, y + h]
    return found


def _example(record: Record, targets: Mapping[str, list[float]], piece: str) -> Example:
    identity, size = record.identity("id"), [record.whole("width"), record.whole("height")]
    if identity not in targets:
        raise record.error("id", f"{identity} has no box among the annotations")
    if min(size) < 1:
        raise record.error("width", f"{size[0]} x {size[1]} (a photo has at least a pixel)")
    fields = {"label": identity, "piece": piece, "target": targets[identity], "size": size}
    fields |= held_out(record.row, record.where)
    return (Pair(record.image("file_name"), record.text("caption"), fields),)


TASK = PairTask(
    "refcoco",
    load,
    verdicts,
    figures,
    (COLUMN,),
    key=("piece", "label"),
    label=r"\d+",
    rule="right if the intersection over union of the predicted and the true box is >= .5; micro average",
    group="piece",
    table=table,
    data_sets=(COCO,),
    measured=measured,
    needs_boxes=True,
)
