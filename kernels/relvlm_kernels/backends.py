"""Which implementations of the ops can run here, and which one does.

One exists so far: `reference`, plain PyTorch on any device.
"""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Backend:
    """`missing` says why the backend cannot run here; empty where it can."""

    name: str
    missing: str = ""


BACKENDS = [Backend("reference")]


def chosen() -> Backend:
    """The backend in use; raises RuntimeError where RELVLM_KERNELS names one that cannot run."""
    wanted = os.environ.get("RELVLM_KERNELS", "reference")
    for backend in BACKENDS:
        if backend.name == wanted and not backend.missing:
            return backend
    usable = ", ".join(b.name for b in BACKENDS if not b.missing)
    raise RuntimeError(f"RELVLM_KERNELS={wanted}: no such backend here (usable: {usable})")
