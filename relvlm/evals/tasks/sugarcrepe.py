"""SugarCrepe (Hsieh et al., NeurIPS 2023): does the caption score above a fluent negative? Seven files."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from relvlm.errors import UserError
from relvlm.evals.figures import shares as m
from relvlm.evals.files import Row, annotation_files, piece_name, read_json, require
from relvlm.evals.tasks.contrast import contrasts
from relvlm.evals.tasks.task import Benchmark, Example, Pair, Task, held_out

KIND = "SugarCrepe"


def load(annotations: Path) -> Benchmark:
    """Examples of one file or of all in a folder."""
    files = annotation_files(annotations, "sugarcrepe", (".json",))
    return Benchmark(tuple(example for file in files for example in _examples(file)))


def metrics(rows: Sequence[Row]) -> Row:
    """Micro accuracy, each file's, their macro mean, and the mean of each kind of edit (add, replace, swap)."""
    for row in rows:
        require(row, ("piece",), "scores", f"{KIND} score")
    pairs = contrasts(rows, "piece", ("c", "n"))
    groups: dict[str, list[bool]] = defaultdict(list)
    for pair in pairs:
        groups[pair.right["piece"]].append(pair.won)
    figures: Row = m.accuracy([pair.won for pair in pairs], groups)
    figures["macro_over_files"] = m.macro(groups)
    kinds = dict.fromkeys(name.partition("_")[0] for name in groups)
    figures["macro_by_edit"] = {
        kind: m.macro({n: flags for n, flags in groups.items() if n.partition("_")[0] == kind})
        for kind in kinds
    }
    figures["chance"] = 50.0
    figures |= m.held_out([pair.won for pair in pairs], [pair.right for pair in pairs])
    return figures


def _examples(file: Path) -> list[Example]:
    records = read_json(file)
    items = records.items() if isinstance(records, dict) else enumerate(records)
    return [_example(str(key), record, file) for key, record in items]


def _example(key: str, record: Row, file: Path) -> Example:
    if not isinstance(record, dict):
        raise UserError(f"{file}: {key}: expected an object, this is no {KIND} file")
    require(record, ("filename", "caption", "negative_caption"), f"{file}: {key}", KIND)
    fields = {"piece": piece_name(file, "sugarcrepe"), **held_out(record)}
    return tuple(
        Pair(str(record["filename"]), str(record[kind]), {"label": f"{key}_{ending}", **fields})
        for kind, ending in (("caption", "c"), ("negative_caption", "n"))
    )


TASK = Task(
    "sugarcrepe",
    load,
    metrics,
    key=("piece", "label"),
    label=".+_[cn]",
    rule="right if caption > negative caption, strictly; micro average over the files",
    group="piece",
)
