"""VL-CheckList (Zhao et al., EMNLP 2022 demos): does the true caption of a photo score above the false one?

Files (github.com/om-ai-lab/VL-CheckList): lists of [photo, {"POS": [text], "NEG": [text]}], one a kind, in folders:
Relation/vg/spatial.json, Attribute/vg/color.json; the first text of each is scored, as its own code does. The parts of
Visual Genome are the common ones; those of HAKE and SWiG are of the same form.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from relvlm import storage
from relvlm.evals.figures import shares
from relvlm.evals.figures.main_table import Column
from relvlm.evals.figures.outcomes import Derived
from relvlm.evals.files import RESERVED, Row, annotation_files
from relvlm.evals.tasks import verdict
from relvlm.evals.tasks.options import Choice, choice_pairs, choices
from relvlm.evals.tasks.pairs import Benchmark, Example, PairTask
from relvlm.evals.tasks.records import Record, arrays
from relvlm.evals.tasks.verdict import Verdict

KIND = "VL-CheckList"
LENGTH = 2
ASPECT = "by_aspect"
ASPECTS = ("Relation", "Attribute", "Object")  # the folders


def load(annotations: Path) -> Benchmark:
    """Examples of one file, or of all in a folder and its subfolders."""
    below = storage.files_below(annotations) if annotations.is_dir() else []
    every = [file for file in below if file.suffix == ".json"]
    if all(file.parent == annotations for file in every):
        files = [(file, file.stem) for file in annotation_files(annotations, "vl_checklist", (".json",))]
    else:
        files = [(file, "_".join(file.relative_to(annotations).with_suffix("").parts)) for file in every]
    return Benchmark(tuple(example for file, piece in files for example in _examples(file, piece)))


def verdicts(rows: Sequence[Row]) -> list[Verdict]:
    """Right if the true caption scores above the false one, strictly."""
    return [_verdict(choice) for choice in choices(rows, KIND)]


def derived(judged: Sequence[Verdict]) -> Derived:
    """The mean over the files."""
    return {"macro_over_files": ("mean", tuple(verdict.groups(judged)))}


def figures(judged: Sequence[Verdict]) -> Row:
    """Micro accuracy, each file's, their mean, and each aspect's: Relation, Attribute, Object, where files lie so."""
    found = verdict.flags(judged)
    aspects = {name: shares.share(flags) for name, flags in verdict.nested(found, ASPECT).items()}
    return {
        **verdict.accuracy(judged),
        **verdict.combined(derived(judged), found),
        **({ASPECT: aspects} if aspects else {}),
        "chance": verdict.chance(judged),
    }


def _verdict(choice: Choice) -> Verdict:
    aspect = choice.piece.partition("_")[0]
    names = ["overall", choice.piece] + ([f"{ASPECT}/{aspect}"] if aspect in ASPECTS else [])
    return Verdict(choice.unit, choice.rows, dict.fromkeys(names, choice.won), choice.card())


def _examples(file: Path, piece: str) -> list[Example]:
    records = arrays(file, KIND, LENGTH)
    if piece in RESERVED:
        raise records[0].error("[0]", f"{piece!r} is the name of a figure (rename the file)")
    return [_example(i, record, piece) for i, record in enumerate(records)]


def _example(number: int, record: Record, piece: str) -> Example:
    texts = record.record("[1]")
    pair = [texts.texts("POS")[0], texts.texts("NEG")[0]]
    return choice_pairs(str(number), record.image("[0]"), pair, {"piece": piece})


TASK = PairTask(
    "vl_checklist",
    load,
    verdicts,
    figures,
    (Column("VL-CheckList", 86, "fine"),),
    key=("piece", "label"),
    label=".+_[01]",
    rule="right if the true caption > the false one, strictly (the first text of each); micro average over the files",
    derived=derived,
    group="piece",
)
