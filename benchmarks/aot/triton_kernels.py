"""Compiles the Triton kernels for GPUs that are not here, through the very calls that a training step makes."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia import driver as nvidia_driver
from triton.runtime.driver import driver

from relvlm_kernels import Regions, triton as ops
from relvlm_kernels.triton import launch

TOOLS = Path(nvidia_driver.__file__).parent / "bin"
TENSOR_CORE = re.compile(r"\b(HMMA|HGMMA|UTCHMMA|UTCQMMA|UTCOMMA|QGMMA)\b")


@contextmanager
def _target(capability: int) -> Iterator[list[Any]]:
    """While it lasts, kernels are compiled for this architecture where they would start; yields them."""
    target = GPUTarget("cuda", capability, 32)
    pretended = SimpleNamespace(
        get_current_target=lambda: target, get_current_device=lambda: capability, get_current_stream=lambda _: 0
    )
    found: list[Any] = []

    def compile_only(kernel: Any, programs: int, arguments: dict[str, Any]) -> None:
        found.append(kernel.warmup(grid=(programs,), **arguments))

    start, launch.start = launch.start, compile_only
    driver.set_active(pretended)
    try:
        yield found
    finally:
        launch.start = start
        driver.reset_active()
