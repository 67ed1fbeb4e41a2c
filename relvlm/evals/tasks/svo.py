"""SVO-Probes (Hendricks and Nematzadeh, 2021): does the right image score above one of another triplet?"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from relvlm.errors import UserError
from relvlm.evals.figures import shares as m
from relvlm.evals.files import Row, annotation_files, read_csv, read_jsonl, require
from relvlm.evals.tasks.contrast import contrasts
from relvlm.evals.tasks.task import Benchmark, Example, Pair, Task, held_out

KIND = "SVO-Probes"
FLAGS = {"subj": "subj_neg", "verb": "verb_neg", "obj": "obj_neg"}


def load(annotations: Path) -> Benchmark:
    """Examples of the official CSV, or of an evaluation JSONL (caption, pos_image, neg_image, svo_index)."""
    files = annotation_files(annotations, "svo", (".csv", ".jsonl"))
    if len(files) > 1:
        raise UserError(f"{annotations}: {len(files)} files (give the one to score)")
    rows = read_csv(files[0]) if files[0].suffix == ".csv" else list(read_jsonl(files[0]))
    if not rows:
        raise UserError(f"{files[0]}: no examples in it")
    examples = tuple(_example(i, row, f"{files[0]}: row {i}") for i, row in enumerate(rows))
    label, times = Counter(example[0].row["label"] for example in examples).most_common(1)[0]
    if times > 1:
        raise UserError(f"{files[0]}: svo_index: {label[:-2]} occurs {times} times (each row needs its own)")
    return Benchmark(examples)


def metrics(rows: Sequence[Row]) -> Row:
    """Micro accuracy, and that of each bucket: what the negative image changes."""
    for row in rows:
        require(row, FLAGS.values(), "scores", f"{KIND} score")
    pairs = contrasts(rows, None, ("p", "n"))
    groups: dict[str, list[bool]] = defaultdict(list)
    for pair in pairs:
        groups[bucket(pair.right, "scores")].append(pair.won)
    figures: Row = m.accuracy([pair.won for pair in pairs], groups)
    figures["macro_over_buckets"] = m.macro(groups)
    figures["chance"] = 50.0
    figures |= m.held_out([pair.won for pair in pairs], [pair.right for pair in pairs])
    return figures


def bucket(row: Row, where: str) -> str:
    """Subject, else verb, else object; raises UserError when the row marks none."""
    for name, field in FLAGS.items():
        if _true(row[field], f"{where}: {field}"):
            return name
    raise UserError(f"{where}: none of {', '.join(FLAGS.values())} is true (one must be)")


def _example(number: int, row: Row, where: str) -> Example:
    official = "sentence" in row
    text = "sentence" if official else "caption"
    images = ("pos_image_id", "neg_image_id") if official else ("pos_image", "neg_image")
    require(row, (text, *images, *FLAGS.values()), where, KIND)
    bucket(row, where)
    fields: Row = {name: row[name] for name in ("pos_triplet", "neg_triplet") if name in row}
    fields |= held_out(row)
    fields |= {name: _true(row[name], f"{where}: {name}") for name in FLAGS.values()}
    index = row.get("svo_index", number)
    return tuple(
        Pair(str(row[image]), str(row[text]), {"label": f"{index}_{ending}", **fields})
        for image, ending in zip(images, ("p", "n"), strict=True)
    )


def _true(value: object, where: str) -> bool:
    known = {"true": True, "1": True, "false": False, "0": False}
    flag = known.get(str(value).strip().lower())
    if flag is None:
        raise UserError(f"{where}: {value!r} is neither True nor False")
    return flag


TASK = Task(
    "svo",
    load,
    metrics,
    key=("label",),
    label=".+_[pn]",
    rule="right if the positive image > the negative, strictly; bucket subject, else verb, else object; micro average",
)
