"""What others published, read from a file and put beside one's own figures.

The file is an object of benchmarks: each has its `source` and rows of figures in percent, by model; a row is a number,
a list, or an object of these by the parts of the benchmark. `published.json`, beside this module, is the built-in one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from relvlm.errors import UserError
from relvlm.evals.figures.bootstrap import Interval
from relvlm.evals.files import Row, read_object
from relvlm.evals.reporting.pages import Section
from relvlm.evals.reporting.run import Run
from relvlm.evals.tables import Lines

BUILTIN = Path(__file__).with_name("published.json")
ABOUT = ("source", "protocol", "format", "note")  # of a benchmark, beside its rows
Figures = tuple[tuple[str, str], ...]  # title of the column, name of one's own figure; by place in a list
WHOLE = ""  # the part that a row without parts is


def _controlled(name: str) -> Figures:
    return (name, name), (f"{name} pairs", f"pairs/{name}"), (f"{name} sets", f"sets/{name}")


def _splits(title: str, name: str, *splits: str) -> Figures:
    return tuple((f"{title} {split}", f"{name}_{split}") for split in splits)


def _counted(title: str, name: str) -> Figures:
    return (f"{title} one", f"{name}_one"), (f"{title} two", f"{name}_two")


NOT_OURS = ""  # a figure that others state and we do not
EDITS = ("replace", "swap")
OVERALL: dict[str, Figures] = {WHOLE: (("overall", "overall"),)}
# Of each benchmark (a task's name): its parts, and the figures of each.
PARTS: dict[str, dict[str, Figures]] = {
    "vsr": {WHOLE: (("dev", "dev/overall"), ("test", "test/overall"))},
    "valse": OVERALL,
    "svo": OVERALL,
    "winoground": OVERALL,
    "sugarcrepe": OVERALL,
    "aro": OVERALL,
    "aro_order": {},
    "paragraphs": {way: ((f"{way}@1", f"{way}@1"), (f"{way}@5", f"{way}@5")) for way in ("TR", "IR")},
    "whatsup": {
        "A": _controlled("A"),
        "B": _controlled("B"),
        "COCO": _counted("COCO", "coco"),
        "GQA": _counted("GQA", "gqa"),
        "average": (("average", "average"),),
        "all": (("all photos", NOT_OURS),),
    },
    "sugarcrepe_pp": {
        "ITT [replace, swap]": tuple((f"ITT {e}, cosine", f"cosine/macro_by_edit/{e}") for e in EDITS),
        "score [replace, swap]": tuple((f"ITT {e}, score", f"macro_by_edit/{e}") for e in EDITS),
        "TOT": (("TOT", "text_only/macro_over_files"),),
    },
    "vl_checklist": {WHOLE: (("action", "Relation_vg_action"), ("spatial", "Relation_vg_spatial"))},
    "cola": OVERALL,
    "colorswap": OVERALL,
    "vismin": OVERALL,
    "negbench": {
        "COCO": (("COCO", "COCO_val_mcq_llama3.1_rephrased"),),
        "VOC2007": (("VOC2007", "VOC2007_mcq_llama3.1_rephrased"),),
    },
    "refcoco": {
        "RefCOCO": _splits("RefCOCO", "refcoco", "val", "testA", "testB"),
        "RefCOCO+": _splits("RefCOCO+", "refcoco+", "val", "testA", "testB"),
        "RefCOCOg": _splits("RefCOCOg", "refcocog", "val", "test"),
    },
}


# Before a figure's name: the way in which those of others were computed, taken where one's own model has it.
WAYS = {"whatsup": "logit_and_cosine/"}


@dataclass(frozen=True)
class Published:
    """Figures of one benchmark, by model and by title of the column."""

    source: str
    rows: Mapping[str, Mapping[str, float]]


def read_reference(path: Path) -> dict[str, Published]:
    """Published figures by benchmark; UserError for what is none, naming benchmark, model and part."""
    found = {}
    for name, content in read_object(path).items():
        if name not in PARTS:
            raise UserError(f"{path}: {name}: not a benchmark with a place here (known: {', '.join(PARTS)})")
        if not isinstance(content, dict) or not isinstance(content.get("source"), str):
            raise UserError(f"{path}: {name}: source: absent (say where the figures are from)")
        rows = {key: value for key, value in content.items() if key not in ABOUT}
        found[name] = Published(content["source"], _by_model(rows, PARTS[name], f"{path}: {name}"))
    return found


def beside_published(runs: Sequence[Run], published: Mapping[str, Published]) -> list[Section]:
    """A table a benchmark that some run was scored on: published rows, then one's own, in bold; nothing where none."""
    tables = []
    for task, reference in published.items():
        own = [run for run in runs if task in run.intervals]
        if own and reference.rows:
            tables.append((f"{task} ({reference.source})", _table(task, own, reference)))
    note = "Figures that others published, in percent, each with its source; in bold, those of this report."
    return [Section("Beside published figures", note, tuple(tables), ())] if tables else []


def _table(task: str, runs: Sequence[Run], reference: Published) -> Lines:
    figures = [column for part in PARTS[task].values() for column in part]
    own = {run.name: _own(run.intervals[task], figures, WAYS.get(task, "")) for run in runs}
    titles = [title for title, _ in figures if any(title in row for row in (*own.values(), *reference.rows.values()))]
    lines = [["", *titles]]
    lines += [[name, *(f"{row[t]:.1f}" if t in row else "" for t in titles)] for name, row in reference.rows.items()]
    return lines + [
        [f"**{name}**", *(f"**{row[t]:.1f}**" if t in row else "" for t in titles)] for name, row in own.items()
    ]


def _own(found: Mapping[str, Interval], figures: Iterable[tuple[str, str]], way: str) -> dict[str, float]:
    """By title, in the way of the others where there is one."""
    named = ((title, found.get(way + figure, found.get(figure))) for title, figure in figures)
    return {title: interval.value for title, interval in named if interval is not None}


def _by_model(rows: Row, parts: Mapping[str, Figures], where: str) -> dict[str, dict[str, float]]:
    """Rows by model, also where the file has them by part first."""
    found: dict[str, dict[str, float]] = {}
    for model, part, value in _cells(rows, parts):
        if part not in parts:
            raise UserError(f"{where}: {model}: {part or 'a row without parts'}: expected {_known(parts)}")
        values = value if isinstance(value, list) else [value]
        if len(values) > len(parts[part]):
            raise UserError(f"{where}: {model}: {part}: {len(values)} figures, there are {len(parts[part])}")
        for (title, _), x in zip(parts[part], values, strict=False):
            if isinstance(x, bool) or not isinstance(x, (int, float)) or not 0 <= x <= 100:
                raise UserError(f"{where}: {model}: {title}: {x!r} is no figure in percent")
            found.setdefault(model, {})[title] = float(x)
    return found


def _cells(rows: Row, parts: Mapping[str, Figures]) -> Iterator[tuple[str, str, Any]]:
    """(model, part, figures)."""
    for name, content in rows.items():
        if not isinstance(content, dict):
            yield name, WHOLE, content
        elif name in parts:
            yield from ((model, name, value) for model, value in content.items())
        else:
            yield from ((name, part, value) for part, value in content.items())


def _known(parts: Mapping[str, Figures]) -> str:
    return ", ".join(name or "figures without parts" for name in parts) or "no rows"
