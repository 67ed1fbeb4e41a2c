"""Features of photos by content, in memory and as one .npz file, so that each photo is encoded once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from relvlm.errors import UserError
from relvlm.evals.scoring.packs import chunks
from relvlm.evals.scoring.photos import Photo
from relvlm.evals.scoring.scorer import Scorer
from relvlm.storage import writing

FIELDS = ("keys", "features", "model")
AT_ONCE = 256  # photos whose encodings are held together


class Index:
    """Photos may move and be renamed: what is known of one is known by the hash of its bytes.

    `path` None: nothing is kept. UserError for a file of another model's features, or none of these.
    """

    def __init__(self, model: str, path: Path | None = None) -> None:
        self.model, self.path = model, path
        self.rows: dict[str, np.ndarray] = {}
        if path is not None and path.exists():
            self.rows = _read(path, model)

    def features(self, scorer: Scorer, photos: Sequence[Path], faults: dict[Path, str]) -> tuple[list[Path], Tensor]:
        """The photos that can be read, and (B, E) their features; those that are new are encoded, and kept.

        What is wrong with the others is put into `faults`.
        """
        keys = {path: _key(path, faults) for path in photos}
        new = [Photo(path) for path, key in keys.items() if key and key not in self.rows]
        faults |= {photo.path: fault for photo, fault in scorer.faults(new).items()}
        sound = [photo.path for photo in new if photo.path not in faults]
        for part in chunks(sound, AT_ONCE):
            rows = scorer.image_features(part).numpy()
            self.rows |= {keys[path]: row for path, row in zip(part, rows, strict=True)}
        if sound:
            self.save()
        known = [path for path in photos if path not in faults]
        if not known:
            return [], torch.zeros(0, 0)
        return known, torch.from_numpy(np.stack([self.rows[keys[path]] for path in known]))

    def save(self) -> None:
        """The old file or the new one, whatever happens."""
        if self.path is None:
            return
        with writing(self.path, "--index"):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.npz")
            np.savez(temporary, keys=list(self.rows), features=np.stack(list(self.rows.values())), model=self.model)
            temporary.replace(self.path)


def _read(path: Path, model: str) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as found:
            keys, features, made_by = (found[name] for name in FIELDS)
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise UserError(f"--index: {path}: no index of relvlm search: {error} (name another file)") from error
    if str(made_by) != model:
        raise UserError(f"--index: {path}: of another model's features (name another file, or remove this one)")
    return dict(zip(keys.tolist(), features, strict=True))


def _key(path: Path, faults: dict[Path, str]) -> str:
    photo = Photo(path)
    try:
        return photo.key(photo.read())
    except UserError as error:
        faults[path] = str(error.__cause__ or error)
        return ""
