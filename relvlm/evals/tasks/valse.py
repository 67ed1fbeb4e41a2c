"""VALSE (Parcalabescu et al., ACL 2022): does the caption score above its foil? Eleven instruments."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from relvlm.evals.figures import shares
from relvlm.evals.figures.main_table import Column
from relvlm.evals.figures.outcomes import Derived
from relvlm.evals.files import Row, annotation_files, piece_name, require
from relvlm.evals.tasks import verdict
from relvlm.evals.tasks.contrast import Contrast, Endings, contrasts, labels
from relvlm.evals.tasks.pairs import Benchmark, Example, Pair, PairTask
from relvlm.evals.tasks.records import Record, keyed
from relvlm.evals.tasks.verdict import Verdict, held_out

KIND = "VALSE"
FIELDS = ("image_file", "caption", "foil", "mturk", "held_out")
ENDINGS: Endings = ("c", "f")
LEAST = 2  # of three annotators who call the caption right
THRESHOLD = 0.5  # of the figures that VALSE's paper has beside the accuracy
PIECE = {
    "actant-swap": "actions",
    "action-replacement": "actions",
    "coreference-hard": "coreference",
    "coreference-standard": "coreference",
    "counting-adversarial": "counting",
    "counting-hard": "counting",
    "counting-small-quant": "counting",
    "existence": "existence",
    "foil-it": "foil-it",
    "plurals": "plurality",
    "relations": "relations",
}


def load(annotations: Path) -> Benchmark:
    """Examples of one instrument's file or of all in a folder that at least 2 of 3 annotators called right.

    Ids run over all examples of the files in order of their names: keys repeat across files.
    """
    kept: list[Example] = []
    dropped: list[Row] = []
    number = 0
    for file in annotation_files(annotations, "valse", (".json",)):
        for key, record in keyed(file, KIND, FIELDS).items():
            example = _example(number, key, record, piece_name(file, "valse"))
            if _annotators(record) >= LEAST:
                kept.append(example)
            else:
                dropped.extend(pair.row for pair in example)
            number += 1
    return Benchmark(tuple(kept), tuple(dropped))


def verdicts(rows: Sequence[Row]) -> list[Verdict]:
    """Right if the caption scores above its foil, strictly."""
    for row in rows:
        require(row, ("instrument",), "scores", f"{KIND} score")
    return [_verdict(pair) for pair in contrasts(rows, "instrument", ENDINGS)]


def derived(judged: Sequence[Verdict]) -> Derived:
    """Macro means over instruments and over pieces; the mean and the least of the thresholded figures."""
    instruments = tuple(verdict.groups(judged))
    pieces = tuple(dict.fromkeys(f"by_piece/{PIECE.get(name, name)}" for name in instruments))
    return {
        "macro_over_instruments": ("mean", instruments),
        "macro_over_pieces": ("mean", pieces),
        "acc_thresholded": ("mean", ("p_c", "p_f")),
        "min_pc_pf": ("min", ("p_c", "p_f")),
    }


def figures(judged: Sequence[Verdict]) -> Row:
    """Micro accuracy, that of each instrument and piece, macro means; and the thresholded figures of VALSE's paper."""
    found = verdict.flags(judged)
    combined = verdict.combined(derived(judged), found)
    pieces = verdict.nested(found, "by_piece")
    return {
        **verdict.accuracy(judged),
        "macro_over_instruments": combined["macro_over_instruments"],
        "by_piece": {name: shares.share(flags) for name, flags in pieces.items()},
        "macro_over_pieces": combined["macro_over_pieces"],
        "p_c": shares.share(found["p_c"]),
        "p_f": shares.share(found["p_f"]),
        "acc_thresholded": combined["acc_thresholded"],
        "min_pc_pf": combined["min_pc_pf"],
        "chance": verdict.chance(judged),
        **verdict.held_out_accuracy(found),
    }


def _verdict(pair: Contrast) -> Verdict:
    instrument = pair.right["instrument"]
    counted = verdict.names(pair.right, instrument, f"by_piece/{PIECE.get(instrument, instrument)}")
    marks = dict.fromkeys(counted, pair.won)
    marks["p_c"] = shares.agrees(pair.right["score"], True, THRESHOLD)
    marks["p_f"] = shares.agrees(pair.wrong["score"], False, THRESHOLD)
    return Verdict(f"{instrument} {pair.identity}", pair.rows, marks, pair.texts_card(instrument))


def _annotators(record: Record) -> int:
    """How many of three call the caption right."""
    if not isinstance(record.value("mturk"), dict):
        raise record.error("mturk.caption", "absent (mturk is no object)")
    return record.record("mturk").whole("caption")


def _example(number: int, key: str, record: Record, instrument: str) -> Example:
    def pair(ending: str, kind: str) -> Pair:
        row = {
            "label": f"{number}_{ending}",
            "instrument": instrument,
            "piece": PIECE.get(instrument, instrument),
            "type": kind,
            "id": number,
            "key": key,
            **held_out(record.row, record.where),
        }
        return Pair(record.image("image_file"), record.text(kind), row)

    right, wrong = ENDINGS
    return pair(right, "caption"), pair(wrong, "foil")


TASK = PairTask(
    "valse",
    load,
    verdicts,
    figures,
    (Column("VALSE", 10, "fine"),),
    key=("instrument", "label"),
    label=labels(ENDINGS),
    rule="mturk.caption >= 2 kept; right if caption > foil, strictly; micro average",
    derived=derived,
    group="instrument",
    thresholded=("p_c", "p_f", "acc_thresholded", "min_pc_pf"),
)
