"""Per-example outcomes of a scores file: every figure as a share of what is counted, for bootstrap and paired tests.

Legend: U units (examples; for retrieval, images with their texts), F figures.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from relvlm.errors import UserError
from relvlm.evals.files import Row, read_json, read_jsonl
from relvlm.evals.tasks import aro, retrieval, svo, valse, vsr, winoground
from relvlm.evals.tasks.contrast import Contrast, contrasts

COMBINE: dict[str, Callable[..., np.ndarray]] = {"mean": np.nanmean, "min": np.min}
FILE = "outcomes.npz"
HELD_OUT = "held_out/overall"


@dataclass(frozen=True)
class Outcomes:
    """Figure f is 100 * sum(right[:, f]) / sum(counted[:, f]); `derived` figures combine others (mean, min)."""

    units: tuple[str, ...]
    names: tuple[str, ...]
    right: np.ndarray  # (U, F)
    counted: np.ndarray  # (U, F)
    derived: dict[str, tuple[str, tuple[str, ...]]]  # name: (one of COMBINE, of these figures)

    def figures(self, weights_WU: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Percent (W,) of each figure under W weightings of the units (default: one, of ones).

        NaN where a weighting leaves nothing to count.
        """
        weights = np.ones((1, len(self.units))) if weights_WU is None else weights_WU
        with np.errstate(invalid="ignore"):
            values = 100 * (weights @ self.right) / (weights @ self.counted)
        found = dict(zip(self.names, values.T, strict=True))
        for name, (combine, parts) in self.derived.items():
            found[name] = COMBINE[combine](np.stack([found[part] for part in parts]), axis=0)
        return found


def save(outcomes: Outcomes, path: Path) -> None:
    """Write them; a name in `path`'s folder is replaced at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.npz")
    texts = {"units": np.array(outcomes.units), "names": np.array(outcomes.names)}
    derived = np.array(json.dumps(outcomes.derived))
    np.savez_compressed(
        temporary,
        right=outcomes.right,
        counted=outcomes.counted,
        derived=derived,
        **texts,  # type: ignore[arg-type]
    )
    temporary.replace(path)


def of_folder(folder: Path) -> Outcomes:
    """Outcomes of a folder of results: those that were saved, else those of its scores."""
    if not (folder / FILE).is_file():
        task = read_json(folder / "metrics.json")["task"]
        return outcomes(task, list(read_jsonl(folder / "scores.jsonl")), str(folder / "scores.jsonl"))
    with np.load(folder / FILE) as file:
        derived = {
            name: (how, tuple(parts)) for name, (how, parts) in json.loads(str(file["derived"])).items()
        }
        texts = (tuple(file["units"].tolist()), tuple(file["names"].tolist()))
        return Outcomes(*texts, file["right"], file["counted"], derived)


class _Table:
    """Collects, for each figure, which units count and which of them are right."""

    def __init__(self) -> None:
        self.units: list[str] = []
        self.columns: dict[str, dict[int, tuple[float, float]]] = defaultdict(dict)

    def add(self, unit: str, right: float, groups: Sequence[str], counted: float = 1.0) -> None:
        """One outcome, in each of the figures `groups`."""
        if not self.units or self.units[-1] != unit:
            self.units.append(unit)
        for name in groups:
            self.columns[name][len(self.units) - 1] = (right, counted)

    def done(self, derived: dict[str, tuple[str, list[str]]]) -> Outcomes:
        right, counted = (np.zeros((len(self.units), len(self.columns))) for _ in range(2))
        for f, cells in enumerate(self.columns.values()):
            rows = list(cells)
            right[rows, f], counted[rows, f] = np.array(list(cells.values())).T
        combined = {name: (how, tuple(parts)) for name, (how, parts) in derived.items() if parts}
        return Outcomes(tuple(self.units), tuple(self.columns), right, counted, combined)


def outcomes(task: str, rows: Sequence[Row], where: str) -> Outcomes:
    """Outcomes of a task's scores, named as in its metrics (a nested figure as `dev/projective`)."""
    makers: dict[str, Callable[[Sequence[Row]], Outcomes]] = {
        "vsr": _vsr,
        "valse": _valse,
        "svo": _svo,
        "winoground": _winoground,
        "sugarcrepe": _sugarcrepe,
        "aro": _aro,
    }
    if task in makers:
        return makers[task](rows)
    if task in retrieval.K:
        return of_retrieval(retrieval.from_rows(rows, where))
    raise UserError(f"{where}: task {task!r} is unknown")


def _vsr(rows: Sequence[Row]) -> Outcomes:
    """Calibrated figures at the threshold of all rows, or of all of dev: the draws do not move it."""
    table, parts = _Table(), vsr.by_split(rows)
    splits = {name: vsr.calibrated(part) for name, part in parts.items()}
    whole, best_on_dev = vsr.calibrated(rows), vsr.dev_threshold(parts)
    for i, row in enumerate(rows):
        unit, label, split = f"{row.get('split')} {row.get('id', i)}", row["label"] == 1, row.get("split")
        right = (row["score"] >= 0.5) == label
        names = ["overall", vsr.CATEGORY.get(row["relation"], "unallocated"), *_held_out(row)]
        table.add(unit, right, names + ([f"{split}/{name}" for name in names] if split else []))
        table.add(unit, row["score"] >= 0.5, ["called_true"])
        table.add(unit, (row["score"] >= whole) == label, ["calibrated_at_median"])
        if split:
            table.add(unit, (row["score"] >= splits[split]) == label, [f"{split}/calibrated_at_median"])
        if split == "test" and best_on_dev is not None:
            table.add(unit, (row["score"] >= best_on_dev) == label, ["test_at_dev_threshold"])
    return table.done({})


def _valse(rows: Sequence[Row]) -> Outcomes:
    table = _Table()
    for pair in contrasts(rows, "instrument", ("c", "f")):
        instrument, unit = pair.right["instrument"], _unit(pair, "instrument")
        piece = valse.PIECE.get(instrument, instrument)
        table.add(unit, pair.won, ["overall", instrument, f"by_piece/{piece}", *_held_out(pair.right)])
        table.add(unit, pair.right["score"] >= 0.5, ["p_c"])
        table.add(unit, pair.wrong["score"] < 0.5, ["p_f"])
    plain = {"overall", "p_c", "p_f", HELD_OUT}
    instruments = [n for n in table.columns if n not in plain and not n.startswith("by_piece/")]
    pieces = [n for n in table.columns if n.startswith("by_piece/")]
    return table.done(
        {
            "macro_over_instruments": ("mean", instruments),
            "macro_over_pieces": ("mean", pieces),
            "acc_thresholded": ("mean", ["p_c", "p_f"]),
            "min_pc_pf": ("min", ["p_c", "p_f"]),
        }
    )


def _svo(rows: Sequence[Row]) -> Outcomes:
    table = _Table()
    for pair in contrasts(rows, None, ("p", "n")):
        table.add(
            _unit(pair), pair.won, ["overall", svo.bucket(pair.right, "scores"), *_held_out(pair.right)]
        )
    buckets = [n for n in table.columns if n in svo.FLAGS]
    return table.done({"macro_over_buckets": ("mean", buckets)})


def _sugarcrepe(rows: Sequence[Row]) -> Outcomes:
    table = _Table()
    for pair in contrasts(rows, "piece", ("c", "n")):
        table.add(_unit(pair, "piece"), pair.won, ["overall", pair.right["piece"], *_held_out(pair.right)])
    files = [n for n in table.columns if n not in ("overall", HELD_OUT)]
    edits = dict.fromkeys(name.partition("_")[0] for name in files)
    by_edit = {f"macro_by_edit/{e}": [n for n in files if n.partition("_")[0] == e] for e in edits}
    return table.done({"macro_over_files": ("mean", files)} | {n: ("mean", p) for n, p in by_edit.items()})


def _aro(rows: Sequence[Row]) -> Outcomes:
    table = _Table()
    kinds: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for first, won in aro.outcomes(rows):
        piece, kind = first["piece"], str(first.get("kind"))
        kinds[piece][kind].append(won)
        table.add(f"{piece} {first['label']}", won, ["overall", piece, f"kind/{piece}/{kind}"])
    averaged = aro.macro_groups(kinds)
    return table.done(
        {
            f"macro_{piece}": ("mean", [f"kind/{piece}/{k}" for k in parts])
            for piece, parts in averaged.items()
        }
    )


def _winoground(rows: Sequence[Row]) -> Outcomes:
    table = _Table()
    for identity, won, tag in winoground.outcomes(rows):
        for name, right in won.items():
            table.add(identity, right, [name] + ([f"{tag}/{name}"] if tag is not None else []))
        table.add(identity, won["group"], ["overall"])
    return table.done({})


def of_retrieval(found: retrieval.Candidates) -> Outcomes:
    """A unit is an image: its own query, and those of its texts, which stand or fall together."""
    table = _Table()
    hits = {"TR": retrieval.ranks(found, "tr"), "IR": retrieval.ranks(found, "ir")}
    own = dict(zip(found.text[found.match].tolist(), found.image[found.match].tolist(), strict=True))
    texts: dict[int, list[int]] = defaultdict(list)
    for text, rank in hits["IR"].items():
        texts[own.get(text, -1)].append(rank)
    for image in sorted(hits["TR"].keys() | texts.keys()):
        for r in retrieval.RECALLS:
            if image in hits["TR"]:
                table.add(str(image), float(hits["TR"][image] < r), [f"TR@{r}"])
            if image in texts:
                ranks = texts[image]
                table.add(str(image), float(sum(x < r for x in ranks)), [f"IR@{r}"], len(ranks))
    return table.done({"overall": ("mean", [f"{way}@{r}" for way in hits for r in retrieval.RECALLS])})


def _held_out(row: Row) -> list[str]:
    return [HELD_OUT] if row.get("held_out") else []


def _unit(pair: Contrast, group: str | None = None) -> str:
    name = str(pair.right["label"]).rpartition("_")[0]
    return f"{pair.right[group]} {name}" if group else name
