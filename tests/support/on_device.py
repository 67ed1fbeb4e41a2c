"""Where Triton's kernels run in tests: on a CUDA device, else in the interpreter on the CPU (see tests/conftest.py)."""

from __future__ import annotations

import os

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
