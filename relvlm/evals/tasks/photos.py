"""The photos that a task needs: found and opened before anything is scored, and listed where not as named."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from relvlm.errors import UserError
from relvlm.evals.files import Row
from relvlm.evals.images import DATA_SETS, DataSet, Images, locate
from relvlm.evals.scoring.photos import CropBox, Photo
from relvlm.evals.scoring.scorer import Scorer
from relvlm.ranks import rank

log = logging.getLogger(__name__)

LISTING = "images.json"  # in a folder of results
SHOWN = 50  # of each kind of fault, in the error


@dataclass(frozen=True)
class Photos:
    """The file of each usable photo, by the annotation's name.

    `substituted`: those whose file has another name or folder. `missing`: names without a file. `damaged`: names whose
    file cannot be taken, and why.
    """

    paths: dict[str, Path]
    substituted: dict[str, str]
    missing: tuple[str, ...]
    damaged: dict[str, str]

    @property
    def unusable(self) -> list[str]:
        """Names of photos that cannot be scored."""
        return [*self.missing, *self.damaged]

    def figures(self) -> Row:
        """How many were left out, and which, the figures being those of the rest; how many have another name."""
        listed: Row = {"images_missing": len(self.missing), "images_damaged": len(self.damaged)}
        listed["images_substituted"] = len(self.substituted)
        if self.unusable:
            listed |= {"scored": "available", "missing_images": self.unusable}
        return listed

    def files(self) -> dict[str, Row]:
        """images.json, which lists them by name; none where each was found as named."""
        if not (self.unusable or self.substituted):
            return {}
        listed = {"substituted": self.substituted, "missing": list(self.missing), "damaged": self.damaged}
        return {LISTING: listed}


def usable_photos(
    scorer: Scorer,
    folder: Path,
    wanted: Iterable[tuple[str, CropBox | None]],
    available: bool,
    data_sets: Sequence[DataSet] = DATA_SETS,
) -> Photos:
    """The photos of these names, each with what is to be cut out of it.

    Raises UserError, naming them all, where some are missing or damaged, unless those `available` are enough and
    there is one. Logs which files stand in for another name.
    """
    crops = dict.fromkeys(wanted)
    found = locate(folder, (name for name, _ in crops), data_sets)
    photos = {Photo(found.paths[name], box): name for name, box in crops if name in found.paths}
    damaged = _unclear(found) | {photos[photo]: fault for photo, fault in scorer.faults(list(photos)).items()}
    paths = {name: path for name, path in found.paths.items() if name not in damaged}
    _check(folder, found.missing, damaged, available and bool(paths))
    substituted = {name: file for name, file in found.substituted.items() if name in paths}
    _log(substituted, found.missing, damaged)
    return Photos(paths, substituted, found.missing, damaged)


def check_photos(folder: Path, names: Iterable[str], available: bool, data_sets: Sequence[DataSet]) -> None:
    """Raises UserError as `usable_photos` does, for what is seen without opening any: to be known before long work."""
    found = locate(folder, names, data_sets)
    _check(folder, found.missing, _unclear(found), available and bool(found.paths))


def _unclear(found: Images) -> dict[str, str]:
    return {name: f"several files fit: {files}" for name, files in found.ambiguous.items()}


def _check(folder: Path, missing: Sequence[str], damaged: Mapping[str, str], enough: bool) -> None:
    if (missing or damaged) and not enough:
        raise UserError(f"{folder}: {_faults(missing, damaged)} (add them, or score the rest with --available)")


def _faults(missing: Sequence[str], damaged: Mapping[str, str]) -> str:
    reasons = [f"{name} ({why})" for name, why in damaged.items()]
    parts = (f"{len(names)} images {what}: {_some(names)}" for what, names in _kinds(missing, reasons) if names)
    return "; ".join(parts)


def _kinds(missing: Sequence[str], reasons: Sequence[str]) -> list[tuple[str, Sequence[str]]]:
    return [("missing", missing), ("damaged", reasons)]


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f", and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def _log(substituted: Mapping[str, str], missing: Sequence[str], damaged: Mapping[str, str]) -> None:
    if rank() == 0 and substituted:
        first = next(f"{name} is {file}" for name, file in substituted.items())
        log.warning("%d photos have another name or folder: %s (all: %s)", len(substituted), first, LISTING)
    if rank() == 0 and (missing or damaged):
        log.warning("left out: %s (all: %s)", _faults(missing, damaged), LISTING)
