"""NegBench, multiple choice (Alhamoud et al., CVPR 2025): which of four captions, with and without negation, is true?

Files (github.com/m1k2zoo/negbench, datasets.md): CSV tables of image_path, caption_0 to caption_3, correct_answer (a
place) and correct_answer_template (positive, negative, hybrid); binary ones have two captions.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from relvlm.evals.figures.main_table import Column
from relvlm.evals.figures.outcomes import Derived
from relvlm.evals.files import Row, piece_name
from relvlm.evals.tasks import verdict
from relvlm.evals.tasks.options import LABEL, Choice, choice_pairs, choices
from relvlm.evals.tasks.pairs import Benchmark, Example, PairTask, benchmark_of
from relvlm.evals.tasks.records import Record, lines
from relvlm.evals.tasks.verdict import Verdict

KIND = "NegBench"
MOST = 4  # captions
CAPTIONS = tuple(f"caption_{i}" for i in range(MOST))
FIELDS = ("image_path", *CAPTIONS[:2], "correct_answer", "correct_answer_template")
TYPE = "by_type"


def load(annotations: Path) -> Benchmark:
    """Examples of one file or of all in a folder."""
    return benchmark_of(annotations, "negbench", ".csv", _examples)


def verdicts(rows: Sequence[Row]) -> list[Verdict]:
    """Right if the correct caption scores above all others, strictly."""
    return [_verdict(choice) for choice in choices(rows, KIND)]


def derived(judged: Sequence[Verdict]) -> Derived:
    """The mean over the files."""
    return {"macro_over_files": ("mean", tuple(verdict.groups(judged)))}


def figures(judged: Sequence[Verdict]) -> Row:
    """Micro accuracy, each file's, their mean, and that of each type of the correct caption."""
    found = verdict.flags(judged)
    types = {name: 100 * sum(flags) / len(flags) for name, flags in verdict.nested(found, TYPE).items()}
    return {
        **verdict.accuracy(judged),
        **verdict.combined(derived(judged), found),
        **({TYPE: types} if types else {}),
        "chance": verdict.chance(judged),
    }


def _verdict(choice: Choice) -> Verdict:
    kind = choice.rows[0].get("type", "")
    names = ["overall", choice.piece] + ([f"{TYPE}/{kind}"] if kind else [])
    return Verdict(choice.unit, choice.rows, dict.fromkeys(names, choice.won), choice.card(kind))


def _examples(file: Path) -> list[Example]:
    piece = piece_name(file, "negbench")
    return [_example(i, record, piece) for i, record in enumerate(lines(file, KIND, FIELDS))]


def _example(number: int, record: Record, piece: str) -> Example:
    captions = [record.text(name) for name in CAPTIONS if name in CAPTIONS[:2] or record.has(name)]
    fields: Row = {"piece": piece}
    if record.has("correct_answer_template"):
        fields["type"] = record.text("correct_answer_template")
    answer = record.place("correct_answer", len(captions))
    return choice_pairs(str(number), record.image("image_path"), captions, fields, answer=answer)


TASK = PairTask(
    "negbench",
    load,
    verdicts,
    figures,
    (Column("NegBench", 88, "fine"),),
    key=("piece", "label"),
    label=LABEL,
    rule="right if the correct caption > all others, strictly; micro average over the files",
    derived=derived,
    group="piece",
)
