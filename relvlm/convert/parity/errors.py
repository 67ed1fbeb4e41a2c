"""Differences from the official outputs, noted one by one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Error:
    """An output and the official one; their largest difference, and that over the largest official value or 1."""

    vectors: str
    output: str
    route: str
    dtype: str
    found: Tensor
    official: Tensor

    @property
    def absolute(self) -> float:
        return (self.found.double() - self.official.double()).abs().max().item()

    @property
    def relative(self) -> float:
        return self.absolute / max(1.0, self.official.double().abs().max().item())


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
        self.append(Error(self.vectors, output, route, self.dtype, found.clone(), official))
