"""Weights on disk, as their authors saved them; nothing in them is run."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy
import torch
from safetensors.torch import load_file
from torch import Tensor

from relvlm.errors import UserError

# What trainings keep beside their weights and what holds data alone: the arguments, losses as numpy's numbers.
_SCALAR = numpy.float64(0).__reduce__()[0]
DATA_ALONE: list[Any] = [
    argparse.Namespace,
    _SCALAR,
    (_SCALAR, "numpy.core.multiarray.scalar"),  # as numpy 1 named it
    numpy.dtype,
    *{type(numpy.dtype(kind)) for kind in "?bBhHiIlLqQefd"},
]
PICKLED = (b"PK", b"\x80")  # a zip file, a pickle
STARTS = {
    b"version https://git-lfs": "a git-lfs pointer, not the file (git lfs pull)",
    b"<": "a web page, not the file (download it again)",
    b"{": "JSON",
}


def read_weights(path: Path) -> Any:
    """What a .pth, .pt, .bin or .safetensors file holds, on the CPU.

    Raises UserError where it cannot be read, and where it holds objects that unpickling would run code for: they are
    named, with what makes a file of it that is safe.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with torch.serialization.safe_globals(DATA_ALONE):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of bytes that are no pickle, its reader raises whatever they lead to
        raise UserError(f"{path}: {_why(path, error)}") from error


def state_dict_of(path: Path) -> tuple[Mapping[str, Tensor], Mapping[str, Any]]:
    """The tensors of a file by name, alone or as its `model` or `state_dict`, and the `config` that lies beside them.

    Raises UserError where there is no such thing.
    """
    content = read_weights(path)
    if not isinstance(content, Mapping):
        raise UserError(f"{path}: holds a {type(content).__name__}, not a state_dict alone or under `model`")
    key = next((key for key in ("model", "state_dict") if isinstance(content.get(key), Mapping)), None)
    tensors = content[key] if key else content
    others = [name for name, value in tensors.items() if not isinstance(value, Tensor)]
    if others or not tensors:
        found = f"{others[0]} is a {type(tensors[others[0]]).__name__}" if others else "it is empty"
        raise UserError(f"{path}: no state_dict, alone or under `model`: {found}")
    config = content.get("config") if key else None
    return tensors, vars(config) if isinstance(config, argparse.Namespace) else config or {}


def _why(path: Path, error: Exception) -> str:
    if named := re.search(r"GLOBAL (\S+)", str(error)):
        return (
            f"holds a {named[1]}, which is not read: unpickling it could run any code. Where you trust the file, save "
            f"its tensors alone: torch.save({{'model': torch.load(FILE, weights_only=False)['model']}}, NEW)"
        )
    start = b""
    if path.is_file() and path.suffix != ".safetensors":
        with path.open("rb") as file:
            start = file.read(40).lstrip()
    if not start or start.startswith(PICKLED):
        return f"no readable weights: {error}"
    kind = next((words for first, words in STARTS.items() if start.startswith(first)), f"starts with {start!r}")
    return f"not a file of PyTorch's: {kind}"
