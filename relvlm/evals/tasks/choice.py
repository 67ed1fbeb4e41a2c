"""Any choice between texts for a photo, one's own questions too: JSON lines of {image, options, answer}.

`answer` is the place of the right option, from 0; `kind` (what the question tests) is optional. Numbers of options may
differ: chance is the mean of theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from relvlm.evals.figures.main_table import Column
from relvlm.evals.files import Row, piece_name
from relvlm.evals.tasks import verdict
from relvlm.evals.tasks.options import LABEL, Choice, choice_pairs, choices
from relvlm.evals.tasks.pairs import Benchmark, Example, PairTask, benchmark_of
from relvlm.evals.tasks.records import Record, lines
from relvlm.evals.tasks.verdict import Verdict, held_out

KIND = "choice"
FIELDS = ("image", "options", "answer", "kind", "held_out")


def load(annotations: Path) -> Benchmark:
    """Examples of one file or of all in a folder."""
    return benchmark_of(annotations, "choice", ".jsonl", _examples)


def verdicts(rows: Sequence[Row]) -> list[Verdict]:
    """Right if the answer scores above all other options, strictly."""
    return [_verdict(choice) for choice in choices(rows, KIND)]


def figures(judged: Sequence[Verdict]) -> Row:
    """Micro accuracy, each file's and, where questions have one, each kind's."""
    found = verdict.flags(judged)
    kinds = {name: 100 * sum(flags) / len(flags) for name, flags in verdict.nested(found, "kind").items()}
    return {
        **verdict.accuracy(judged),
        **({"kind": kinds} if kinds else {}),
        "chance": verdict.chance(judged),
        **verdict.held_out_accuracy(found),
    }


def _verdict(choice: Choice) -> Verdict:
    first = choice.rows[0]
    kind = [f"kind/{first['kind']}"] if "kind" in first else []
    marks = dict.fromkeys(verdict.names(first, choice.piece, *kind), choice.won)
    return Verdict(choice.unit, choice.rows, marks, choice.card(str(first.get("kind", ""))))


def _examples(file: Path) -> list[Example]:
    piece = piece_name(file, "choice")
    return [_example(i, record, piece) for i, record in enumerate(lines(file, KIND, FIELDS))]


def _example(number: int, record: Record, piece: str) -> Example:
    options = record.texts("options", 2)
    fields = {"piece": piece, **held_out(record.row, record.where)}
    fields |= {"kind": record.text("kind")} if record.has("kind") else {}
    answer = record.place("answer", len(options))
    if options.count(options[answer]) > 1:
        raise record.error("options", f"{options[answer]!r} is there twice, so nobody can be right (give others)")
    return choice_pairs(str(number), record.image("image"), options, fields, answer=answer)


TASK = PairTask(
    "choice",
    load,
    verdicts,
    figures,
    (Column("Choice", 95),),
    key=("piece", "label"),
    label=LABEL,
    rule="right if the answer > all other options, strictly; micro average",
    group="piece",
)
