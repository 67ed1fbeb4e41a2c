"""SVO-Probes (Hendricks and Nematzadeh, 2021): does the right image score above one of another triplet?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from relvlm.errors import UserError
from relvlm.evals.figures.main_table import Column
from relvlm.evals.figures.outcomes import Derived
from relvlm.evals.files import Row, annotation_files, require
from relvlm.evals.tasks import verdict
from relvlm.evals.tasks.contrast import Contrast, Endings, contrasts, labels
from relvlm.evals.tasks.pairs import Benchmark, Example, Pair, PairTask
from relvlm.evals.tasks.records import Record, lines
from relvlm.evals.tasks.task import Card
from relvlm.evals.tasks.verdict import Verdict, held_out

KIND = "SVO-Probes"
ENDINGS: Endings = ("p", "n")
FLAGS = {"subj": "subj_neg", "verb": "verb_neg", "obj": "obj_neg"}
FIELDS = (*FLAGS.values(), "pos_triplet", "neg_triplet", "svo_index", "held_out")


def load(annotations: Path) -> Benchmark:
    """Examples of the official CSV, or of an evaluation JSONL (caption, pos_image, neg_image, svo_index)."""
    files = annotation_files(annotations, "svo", (".csv", ".jsonl"))
    if len(files) > 1:
        raise UserError(f"{annotations}: {len(files)} files (give the one to score)")
    examples = tuple(_example(i, record) for i, record in enumerate(lines(files[0], KIND, FIELDS)))
    label, times = Counter(example[0].row["label"] for example in examples).most_common(1)[0]
    if times > 1:
        raise UserError(f"{files[0]}: svo_index: {label[:-2]} occurs {times} times (each row needs its own)")
    return Benchmark(examples)


def verdicts(rows: Sequence[Row]) -> list[Verdict]:
    """Right if the positive image scores above the negative one, strictly."""
    for row in rows:
        require(row, FLAGS.values(), "scores", f"{KIND} score")
    return [_verdict(pair) for pair in contrasts(rows, None, ENDINGS)]


def derived(judged: Sequence[Verdict]) -> Derived:
    """The macro mean over the buckets."""
    return {"macro_over_buckets": ("mean", tuple(verdict.groups(judged)))}


def figures(judged: Sequence[Verdict]) -> Row:
    """Micro accuracy, and that of each bucket: what the negative image changes."""
    found = verdict.flags(judged)
    return {
        **verdict.accuracy(judged),
        **verdict.combined(derived(judged), found),
        "chance": verdict.chance(judged),
        **verdict.held_out_accuracy(found),
    }


def bucket(row: Row, where: str) -> str:
    """Subject, else verb, else object; raises UserError when the row marks none."""
    record = Record(row, where, KIND)
    for name, field in FLAGS.items():
        if record.flag(field):
            return name
    raise UserError(f"{where}: none of {', '.join(FLAGS.values())} is true (one must be)")


def _verdict(pair: Contrast) -> Verdict:
    right, wrong = pair.rows
    changed = bucket(right, "scores")
    shown = (
        ("left image:", right.get("text", ""), right["score"]),
        ("right image:", "the same text", wrong["score"]),
    )
    images = (right.get("image", ""), wrong.get("image", ""))
    what = f"left {right.get('pos_triplet', '')}, right {right.get('neg_triplet', '')}"
    marks = dict.fromkeys(verdict.names(right, changed), pair.won)
    relation, *entities = _triplet(right.get("pos_triplet", ""))
    card = Card(images, shown, pair.won, changed, what, relation=relation, entities=tuple(entities))
    return Verdict(pair.identity, pair.rows, marks, card)


def _triplet(text: str) -> tuple[str, ...]:
    """Relation, subject and object of `subject,relation,object`; a blank relation alone where it is something else."""
    subject, *rest = (part.strip() for part in text.split(","))
    return (rest[0], subject, rest[1]) if len(rest) == 2 else ("",)


def _example(number: int, record: Record) -> Example:
    official = record.has("sentence")
    text = "sentence" if official else "caption"
    images = ("pos_image_id", "neg_image_id") if official else ("pos_image", "neg_image")
    fields: Row = {name: record.text(name) for name in ("pos_triplet", "neg_triplet") if record.has(name)}
    fields |= held_out(record.row, record.where)
    fields |= {name: record.flag(name) for name in FLAGS.values()}
    bucket(record.row, record.where)
    index = record.identity("svo_index") if record.has("svo_index") else number
    return tuple(
        Pair(record.image_id(image), record.text(text), {"label": f"{index}_{ending}", **fields})
        for image, ending in zip(images, ENDINGS, strict=True)
    )


TASK = PairTask(
    "svo",
    load,
    verdicts,
    figures,
    (Column("SVO", 20, "fine"),),
    key=("label",),
    label=labels(ENDINGS),
    rule="right if the positive image > the negative, strictly; bucket subject, else verb, else object; micro average",
    derived=derived,
    data_sets=(),
)
