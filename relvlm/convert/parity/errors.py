"""Differences from the official outputs, noted one by one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Error:
    """Largest difference of an output, as it is and over the largest official value (at least 1)."""

    vectors: str
    output: str
    route: str
    dtype: str
    absolute: float
    relative: float


class Errors(list[Error]):
    """What `check` found; names begin with the part of the vectors that the outputs are of."""

    def __init__(self, vectors: str, dtype: torch.dtype) -> None:
        super().__init__()
        self.vectors, self.dtype = vectors, str(dtype).removeprefix("torch.")

    def check(self, output: str, found: Any, official: Any, route: str = "plain", rows: Any = ...) -> None:
        """Note the error of an output, at `rows` alone where given."""
        found, official = torch.as_tensor(found).detach()[rows], torch.as_tensor(official)[rows]
        if found.shape != official.shape:
            raise ValueError(f"{output}: shape {tuple(found.shape)}, official {tuple(official.shape)}")
        absolute = (found.double() - official.double()).abs().max().item()
        scale = max(1.0, official.double().abs().max().item())
        self.append(Error(self.vectors, output, route, self.dtype, absolute, absolute / scale))
