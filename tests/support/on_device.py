"""Where Triton's kernels run in tests: on a CUDA device, else in the interpreter on the CPU (see tests/conftest.py)."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import pytest
import torch
from torch import Tensor

INTERPRETED = not torch.cuda.is_available()
DEVICE = "cpu" if INTERPRETED else "cuda"


def triton_marks() -> list[pytest.MarkDecorator]:
    """Of a test file: on a machine with a GPU its tests are among those that need it."""
    off = INTERPRETED and os.environ.get("TRITON_INTERPRET") != "1"
    return [
        pytest.mark.skipif(off, reason="no GPU, and TRITON_INTERPRET is not 1"),
        *([] if INTERPRETED else [pytest.mark.gpu]),
    ]


def error(found: Tensor, wanted: Tensor) -> float:
    """Root mean square, in terms of the wanted values'."""
    return float((found.double() - wanted).square().mean().sqrt() / wanted.square().mean().sqrt())


def drawn(generator: torch.Generator, *shape: int, dtype: torch.dtype) -> Tensor:
    """Random numbers, the same on any device."""
    return torch.randn(*shape, dtype=torch.float64, generator=generator).to(DEVICE, dtype)


def assert_close(found: Iterable[Tensor], wanted: Iterable[Tensor], dtype: torch.dtype, times: float = 1) -> None:
    """Each of `dtype`, with an error of at most so many times its precision."""
    for a, b in zip(found, wanted, strict=True):
        assert a.dtype == dtype and error(a, b) < times * torch.finfo(dtype).eps


def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, dict[str, int]]]:
    """From now on kernels do not start: (name, programs, sizes of tiles and options) of those that would."""
    from relvlm_kernels.triton import launch

    found: list[tuple[str, int, dict[str, int]]] = []

    def note(kernel: Any, programs: int, arguments: dict[str, Any]) -> None:
        kept = {n: x for n, x in arguments.items() if n.startswith(("BLOCK_", "num_"))}
        found.append((kernel.fn.__name__, programs, kept))

    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(launch, "start", note)
    return found
