"""SugarCrepe (Hsieh et al., NeurIPS 2023): does the caption score above a fluent negative? Seven files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from relvlm.evals.figures.main_table import Column
from relvlm.evals.figures.outcomes import Derived
from relvlm.evals.files import Row, piece_name, require
from relvlm.evals.images import COCO
from relvlm.evals.tasks import verdict
from relvlm.evals.tasks.contrast import Contrast, Endings, contrasts, labels
from relvlm.evals.tasks.pairs import Benchmark, Example, Pair, PairTask, benchmark_of
from relvlm.evals.tasks.records import Record, listed_or_keyed
from relvlm.evals.tasks.verdict import Verdict, held_out

KIND = "SugarCrepe"
FIELDS = ("filename", "caption", "negative_caption", "held_out")
ENDINGS: Endings = ("c", "n")


def load(annotations: Path) -> Benchmark:
    """Examples of one file or of all in a folder."""
    return benchmark_of(annotations, "sugarcrepe", ".json", _examples)


def verdicts(rows: Sequence[Row]) -> list[Verdict]:
    """Right if the caption scores above the negative caption, strictly."""
    for row in rows:
        require(row, ("piece",), "scores", f"{KIND} score")
    return [_verdict(pair) for pair in contrasts(rows, "piece", ENDINGS)]


def derived(judged: Sequence[Verdict]) -> Derived:
    """Means over the files, all of them and those of each kind of edit (what stands before the first `_`)."""
    files = tuple(verdict.groups(judged))
    found: Derived = {"macro_over_files": ("mean", files)}
    for edit in dict.fromkeys(name.partition("_")[0] for name in files):
        parts = tuple(name for name in files if name.partition("_")[0] == edit)
        found[f"macro_by_edit/{edit}"] = ("mean", parts)
    return found


def figures(judged: Sequence[Verdict]) -> Row:
    """Micro accuracy, each file's, their macro mean, and the mean of each kind of edit (add, replace, swap)."""
    found = verdict.flags(judged)
    combined = verdict.combined(derived(judged), found)
    return {
        **verdict.accuracy(judged),
        "macro_over_files": combined["macro_over_files"],
        "macro_by_edit": verdict.nested(combined, "macro_by_edit"),
        "chance": verdict.chance(judged),
        **verdict.held_out_accuracy(found),
    }


def _verdict(pair: Contrast) -> Verdict:
    file = pair.right["piece"]
    marks = dict.fromkeys(verdict.names(pair.right, file), pair.won)
    return Verdict(f"{file} {pair.identity}", pair.rows, marks, pair.texts_card(file))


def _examples(file: Path) -> list[Example]:
    records = listed_or_keyed(file, KIND, FIELDS)
    return [_example(key, record, piece_name(file, "sugarcrepe")) for key, record in records.items()]


def _example(key: str, record: Record, piece: str) -> Example:
    fields = {"piece": piece, **held_out(record.row, record.where)}
    return tuple(
        Pair(record.image("filename"), record.text(kind), {"label": f"{key}_{ending}", **fields})
        for kind, ending in zip(("caption", "negative_caption"), ENDINGS, strict=True)
    )


TASK = PairTask(
    "sugarcrepe",
    load,
    verdicts,
    figures,
    (Column("SugarCrepe", 60, "fine"),),
    key=("piece", "label"),
    label=labels(ENDINGS),
    rule="right if caption > negative caption, strictly; micro average over the files",
    derived=derived,
    group="piece",
    data_sets=(COCO,),
)
