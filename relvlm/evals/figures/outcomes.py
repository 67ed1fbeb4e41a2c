"""Per-example outcomes: every figure as a share of what is counted, for bootstrap and paired tests.

Legend: U units (examples; for retrieval, images with their texts), F figures, W weightings.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from relvlm.errors import UserError


def _mean(parts: np.ndarray, axis: int) -> np.ndarray:
    """Of those that are numbers; NaN where none is, without numpy's warning."""
    there = ~np.isnan(parts)
    with np.errstate(invalid="ignore"):
        return np.where(there, parts, 0).sum(axis) / there.sum(axis)


COMBINE: dict[str, Callable[..., np.ndarray]] = {"mean": _mean, "min": np.min}
FILE = "outcomes.npz"  # in a folder of results
DIGEST = "outcomes_sha256"  # in metrics.json: of which outcomes its figures are
Derived = dict[str, tuple[str, tuple[str, ...]]]  # name: (one of COMBINE, of these figures)
Counts = Mapping[str, tuple[float, float]]  # of one unit, by figure: how much of it is right, how much counts


@dataclass(frozen=True)
class Outcomes:
    """Figure f is 100 * sum(right[:, f]) / sum(counted[:, f]); `derived` figures combine others (mean, min)."""

    units: tuple[str, ...]
    names: tuple[str, ...]
    right: np.ndarray  # (U, F)
    counted: np.ndarray  # (U, F)
    derived: Derived

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

    def without(self, left_out: Collection[str]) -> Outcomes:
        """All but these figures."""
        kept = [i for i, name in enumerate(self.names) if name not in left_out]
        derived = {name: how for name, how in self.derived.items() if name not in left_out}
        names = tuple(self.names[i] for i in kept)
        return Outcomes(self.units, names, self.right[:, kept], self.counted[:, kept], derived)


def tabulate(units: Iterable[tuple[str, Counts]], derived: Derived) -> Outcomes:
    """Outcomes of named units; figures are in the order in which they first occur."""
    names: list[str] = []
    columns: dict[str, dict[int, tuple[float, float]]] = defaultdict(dict)
    for name, counts in units:
        for figure, count in counts.items():
            columns[figure][len(names)] = count
        names.append(name)
    right, counted = (np.zeros((len(names), len(columns))) for _ in range(2))
    for f, cells in enumerate(columns.values()):
        rows = list(cells)
        right[rows, f], counted[rows, f] = np.array(list(cells.values())).T
    return Outcomes(tuple(names), tuple(columns), right, counted, derived)


def save(found: Outcomes, path: Path) -> None:
    """Write them; a name in `path`'s folder is replaced at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.npz")
    texts = {"units": np.array(found.units), "names": np.array(found.names)}
    derived = np.array(json.dumps(found.derived))
    np.savez_compressed(
        temporary,
        right=found.right,
        counted=found.counted,
        derived=derived,
        **texts,  # type: ignore[arg-type]
    )
    temporary.replace(path)


def load(path: Path) -> Outcomes:
    """Those that `save` wrote; UserError for another file."""
    try:
        with np.load(path) as file:
            derived = {name: (how, tuple(parts)) for name, (how, parts) in json.loads(str(file["derived"])).items()}
            texts = (tuple(file["units"].tolist()), tuple(file["names"].tolist()))
            found = Outcomes(*texts, file["right"], file["counted"], derived)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: not readable: {error} (evaluate again)") from error
    if not found.right.shape == found.counted.shape == (len(found.units), len(found.names)):
        raise UserError(f"{path}: not as many outcomes as examples and figures (evaluate again)")
    return found


def digest(path: Path) -> str:
    """Names the content of a file of outcomes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
