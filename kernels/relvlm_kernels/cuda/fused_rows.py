"""`add_norm` and `bias_gelu` of the `cuda` backend: Triton's. They move memory, which no language does faster.

Triton is imported at the first call, for a machine without it may use the other kernels; there the call is an
ImportError.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any


def add_norm(*args: Any) -> Any:
    """See `reference.add_norm`."""
    return _triton().add_norm(*args)


def add_norm_backward(*args: Any) -> Any:
    return _triton().add_norm_backward(*args)


def bias_gelu(*args: Any) -> Any:
    """See `reference.bias_gelu`."""
    return _triton().bias_gelu(*args)


def bias_gelu_backward(*args: Any) -> Any:
    return _triton().bias_gelu_backward(*args)


@cache
def _triton() -> Any:
    return import_module("relvlm_kernels.triton.fused_rows")
