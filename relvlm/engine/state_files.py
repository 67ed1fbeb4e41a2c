"""The training state by parameter name, each rank's slices in a file of its own, to be read by any number of ranks.

A file `state_00000.safetensors` holds tensors named `PART:START:NAME`: elements START and following of part PART
(weight, exp_avg, exp_avg_sq) of the flattened parameter NAME, fp32.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from relvlm.engine.slices import Slice
from relvlm.errors import UserError

PATTERN = "state_*.safetensors"


def file_of(rank: int) -> str:
    """The name of a rank's file."""
    return f"state_{rank:05d}.safetensors"


def staged(slices: Iterable[Slice]) -> dict[str, Tensor]:
    """Copies on the CPU, by the names that they have in a file."""
    return {
        f"{part}:{each.start}:{each.name}": values.to("cpu", torch.float32, copy=True)
        for each in slices
        for part, values in each.parts.items()
    }


def write(path: Path, tensors: dict[str, Tensor]) -> None:
    """A rank's file of what `staged` gave."""
    save_file(tensors, path)


class _Piece(NamedTuple):
    start: int
    length: int
    file: Path
    key: str


class StateFiles:
    """The state in a checkpoint, of whatever ranks it was."""

    def __init__(self, checkpoint: Path) -> None:
        """Reads the files' headers; UserError where there are none or one cannot be read."""
        self.checkpoint = checkpoint
        self._pieces: dict[tuple[str, str], list[_Piece]] = defaultdict(list)
        paths = sorted(checkpoint.glob(PATTERN))
        if not paths:
            raise UserError(
                f"{checkpoint}: no {PATTERN}: a model alone, no run can go on from it (see init.checkpoint)"
            )
        try:
            self._files = {path: safe_open(path, framework="pt") for path in paths}
            for path, file in self._files.items():
                for key in file.keys():  # noqa: SIM118 (it is no mapping)
                    part, start, name = key.split(":", 2)
                    length = file.get_slice(key).get_shape()[0]
                    self._pieces[part, name].append(_Piece(int(start), length, path, key))
        except (OSError, ValueError, SafetensorError) as error:
            raise UserError(f"{checkpoint}: the training state is not readable: {error}") from error
        for pieces in self._pieces.values():
            pieces.sort()

    def names(self) -> set[str]:
        """The parameters that there is state of."""
        return {name for _, name in self._pieces}

    def read_into(self, each: Slice) -> None:
        """Fill the parts of a slice; UserError where the checkpoint lacks some of it."""
        for part, values in each.parts.items():
            self._fill(part, each.name, each.start, values)

    @torch.no_grad()
    def _fill(self, part: str, name: str, start: int, values: Tensor) -> None:
        pieces, end, at = self._pieces.get((part, name), []), start + len(values), start
        place = max(bisect_right(pieces, start, key=lambda piece: piece.start) - 1, 0)
        for piece in pieces[place:]:
            last = min(end, piece.start + piece.length)
            if at == end or not piece.start <= at < last:
                break
            found = self._files[piece.file].get_slice(piece.key)[at - piece.start : last - piece.start]
            values[at - start : last - start].copy_(found)
            at = last
        if at != end:
            raise UserError(f"{self.checkpoint}: no {part} of {name} from element {at} on (another model?)")
