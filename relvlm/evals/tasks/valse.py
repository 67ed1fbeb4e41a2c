"""VALSE (Parcalabescu et al., ACL 2022): does the caption score above its foil? Eleven instruments."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from relvlm.errors import UserError
from relvlm.evals.figures import shares as m
from relvlm.evals.files import Row, annotation_files, piece_name, read_json, require
from relvlm.evals.tasks.contrast import contrasts
from relvlm.evals.tasks.task import Benchmark, Example, Pair, Task, held_out

KIND = "VALSE"
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
        for key, record in _records(file).items():
            example = _example(number, key, record, piece_name(file, "valse"))
            if record["mturk"]["caption"] >= 2:
                kept.append(example)
            else:
                dropped.extend(pair.row for pair in example)
            number += 1
    return Benchmark(tuple(kept), tuple(dropped))


def metrics(rows: Sequence[Row]) -> Row:
    """Micro accuracy, that of each instrument and piece, macro means; and the thresholded figures of VALSE's paper."""
    for row in rows:
        require(row, ("instrument",), "scores", f"{KIND} score")
    pairs = contrasts(rows, "instrument", ("c", "f"))
    groups: dict[str, list[bool]] = defaultdict(list)
    for pair in pairs:
        groups[pair.right["instrument"]].append(pair.won)
    figures: Row = m.accuracy([pair.won for pair in pairs], groups)
    captions = m.percent(sum(pair.right["score"] >= 0.5 for pair in pairs), len(pairs))
    foils = m.percent(sum(pair.wrong["score"] < 0.5 for pair in pairs), len(pairs))
    figures["macro_over_instruments"] = m.macro(groups)
    pieces: dict[str, list[bool]] = defaultdict(list)
    for name, flags in groups.items():
        pieces[PIECE.get(name, name)].extend(flags)
    figures["by_piece"] = {name: m.percent(sum(flags), len(flags)) for name, flags in pieces.items()}
    figures["macro_over_pieces"] = m.macro(pieces)
    figures["p_c"], figures["p_f"] = captions, foils
    figures["acc_thresholded"] = (captions + foils) / 2
    figures["min_pc_pf"] = min(captions, foils)
    figures["chance"] = 50.0
    figures |= m.held_out([pair.won for pair in pairs], [pair.right for pair in pairs])
    return figures


def _records(file: Path) -> dict[str, Row]:
    records = read_json(file)
    if not isinstance(records, dict):
        raise UserError(f"{file}: expected one object of examples, this is no {KIND} file")
    for key, record in records.items():
        where = f"{file}: {key}"
        if not isinstance(record, dict):
            raise UserError(f"{where}: expected an object, this is no {KIND} file")
        require(record, ("image_file", "caption", "foil", "mturk"), where, KIND)
        if not isinstance(record["mturk"], dict) or "caption" not in record["mturk"]:
            raise UserError(f"{where}: mturk.caption: absent (it counts the annotators for the caption)")
    return records


def _example(number: int, key: str, record: Row, instrument: str) -> Example:
    def pair(ending: str, kind: str) -> Pair:
        row = {
            "label": f"{number}_{ending}",
            "instrument": instrument,
            "piece": PIECE.get(instrument, instrument),
            "type": kind,
            "id": number,
            "key": key,
            **held_out(record),
        }
        return Pair(str(record["image_file"]), str(record[kind]), row)

    return pair("c", "caption"), pair("f", "foil")


TASK = Task(
    "valse",
    load,
    metrics,
    key=("instrument", "label"),
    label=".+_[cf]",
    rule="mturk.caption >= 2 kept; right if caption > foil, strictly; micro average",
    group="instrument",
    thresholded=("p_c", "p_f", "acc_thresholded", "min_pc_pf"),
)
