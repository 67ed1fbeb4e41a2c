"""Which implementations of the ops can run here, and which one runs for a device and dtype.

A backend is a module: `relvlm_kernels.<name>`, for `reference` `relvlm_kernels.eager`. Beside the ops it has
`missing()`, why it cannot run here (empty where it can), `takes(device, dtype)` and `description()`. Modules are
imported when first asked for; one that fails to import is missing for that reason.

Unless RELVLM_KERNELS names a backend, the first of `ORDER` for the device that can run and takes the dtype runs. A
warning says so, once, where plain PyTorch runs because the compiled kernels cannot. RELVLM_KERNELS=cpu is an error
where that backend is missing; tensors that the named one does not take, such as those of a GPU, are an error too.
"""

from __future__ import annotations

import os
import warnings
from functools import cache
from importlib import import_module
from types import ModuleType

import torch

MODULES = {"reference": "eager", "cpu": "cpu", "triton": "triton", "cuda": "cuda"}
ORDER = {"cpu": ("cpu", "reference"), "cuda": ("cuda", "triton", "reference")}  # others: reference


class Backend:
    """One implementation of the ops; `ops` is its module, imported at first use."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._ops: ModuleType | None = None
        self._missing: str | None = None

    @property
    def ops(self) -> ModuleType:
        if self._ops is None:
            self._ops = import_module(f"relvlm_kernels.{MODULES.get(self.name, self.name)}")
        return self._ops

    @property
    def missing(self) -> str:
        """Why it cannot run here; empty where it can."""
        if self._missing is None:
            try:
                self._missing = self.ops.missing()
            except ImportError as error:
                self._missing = str(error)
        return self._missing

    def takes(self, device: torch.device, dtype: torch.dtype) -> bool:
        return not self.missing and self.ops.takes(device, dtype)


BACKENDS = {name: Backend(name) for name in MODULES}


def chosen(device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> Backend:
    """The backend that runs for tensors of `device` and `dtype`.

    Raises RuntimeError where RELVLM_KERNELS names one that is unknown, cannot run here or does not take them.
    """
    device = torch.device(device)
    wanted = os.environ.get("RELVLM_KERNELS")
    if wanted:
        backend = named(wanted)
        if not backend.takes(device, dtype):
            raise RuntimeError(f"RELVLM_KERNELS={wanted}: no kernels for {dtype} on {device}")
        return backend
    order = ORDER.get(device.type, ("reference",))
    backend = next(BACKENDS[name] for name in order if BACKENDS[name].takes(device, dtype))
    if backend.name == "reference":
        _warn_of_slow(device.type)
    return backend


@cache
def _warn_of_slow(device: str) -> None:
    reasons = [
        f"{name}: {BACKENDS[name].missing}" for name in ORDER.get(device, ()) if BACKENDS[name].missing
    ]
    if reasons:
        warnings.warn(
            f"relvlm_kernels: plain PyTorch runs on the {device}, several times slower than the compiled kernels, "
            f"which are not usable: {'; '.join(reasons)}",
            RuntimeWarning,
            stacklevel=4,
        )


def check_choice() -> None:
    """Raises RuntimeError where RELVLM_KERNELS names a backend that is unknown or cannot run here."""
    wanted = os.environ.get("RELVLM_KERNELS")
    if wanted:
        named(wanted)


def named(name: str) -> Backend:
    """The backend of that name; raises RuntimeError where it is unknown or cannot run here."""
    found = BACKENDS.get(name)
    if found and not found.missing:
        return found
    reason = (
        found.missing if found else f"usable: {', '.join(n for n, b in BACKENDS.items() if not b.missing)}"
    )
    raise RuntimeError(f"RELVLM_KERNELS={name}: no such backend here ({reason})")
