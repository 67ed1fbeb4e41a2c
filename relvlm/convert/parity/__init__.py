"""How far our outputs are from the official models', on their reference vectors.

Two routes: *plain*, one padded text with one image's tokens at a time through the library's methods; *packed*, the
training forward, where keys and values are projected once per image and only the rows that are read are computed.
"""

from __future__ import annotations

from pathlib import Path

import torch

from relvlm.convert.names import Family
from relvlm.convert.official import from_official, teacher_from_official
from relvlm.convert.parity.albef import check_albef
from relvlm.convert.parity.errors import Error, Errors
from relvlm.convert.parity.shared import Vectors
from relvlm.convert.parity.xvlm import check_xvlm
from relvlm.pretraining.step import Pretraining

__all__ = ["Error", "Errors", "compare"]


def compare(file: Path, dtype: torch.dtype = torch.float64) -> Errors:
    """Every output of a file of vectors, both routes; fp64 is compared with the official fp64 run."""
    vectors: Vectors = torch.load(file, weights_only=True)
    errors = Errors(file.stem, dtype)
    family = vectors["config"]["model"]
    pretraining = _pretraining(vectors, family).to(dtype).eval()
    if pretraining.teacher is not None:
        pretraining.teacher.to(dtype)
    official = vectors["outputs64" if dtype == torch.float64 else "outputs"]
    (check_albef if family == "albef" else check_xvlm)(pretraining, vectors["inputs"], official, errors)
    return errors


def _pretraining(vectors: Vectors, family: Family) -> Pretraining:
    """In double precision, which holds what either run gave."""
    official = vectors["state_dict"], vectors["config"], family
    pretraining = Pretraining(from_official(*official).double())
    state = teacher_from_official(*official)
    if pretraining.teacher is not None and state is not None:
        pretraining.teacher.double().load_state_dict(state)
    return pretraining
