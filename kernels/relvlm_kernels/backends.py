"""Which implementations of the ops can run here, and which one runs for a device, a dtype and a width of heads.

A backend is a package, `relvlm_kernels.<name>`. Beside the ops it has `missing()`, why it cannot run here at all,
`refusal(device, dtype, width)`, why it does not take such tensors (both empty where nothing is in the way), and
`description()`. Packages are imported when first asked for; one that fails to import is missing for that reason.

Unless RELVLM_KERNELS names a backend, the first of `ORDER` for the device that takes the tensors runs; a warning says
once why it is not the first of all. RELVLM_KERNELS=cpu is an error where that backend is missing; tensors that the
named one does not take, such as those of a GPU, are an error too.
"""

from __future__ import annotations

import os
import warnings
from functools import cache
from importlib import import_module
from types import ModuleType

import torch

NAMES = ("reference", "cpu", "triton", "cuda")
ORDER = {"cpu": ("cpu", "reference"), "cuda": ("cuda", "triton", "reference")}  # others: reference
SLOW = "reference"


class Backend:
    """One implementation of the ops; `ops` is its package, imported at first use."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._ops: ModuleType | None = None
        self._missing: str | None = None

    @property
    def ops(self) -> ModuleType:
        if self._ops is None:
            self._ops = import_module(f"relvlm_kernels.{self.name}")
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

    def refusal(self, device: torch.device, dtype: torch.dtype, width: int | None = None) -> str:
        """Why it does not run for such tensors; empty where it does. `width`: of the heads of an attention."""
        return self.missing or self.ops.refusal(device, dtype, width)


BACKENDS = {name: Backend(name) for name in NAMES}


def chosen(device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32, width: int | None = None) -> Backend:
    """The backend that runs for tensors of `device` and `dtype`, and for attention with heads of `width`.

    Raises RuntimeError where RELVLM_KERNELS names one that is unknown, cannot run here or does not take them.
    """
    device = torch.device(device) if isinstance(device, str) else device
    return BACKENDS[_chosen(os.environ.get("RELVLM_KERNELS", ""), device, dtype, width)]


@cache
def _chosen(wanted: str, device: torch.device, dtype: torch.dtype, width: int | None) -> str:
    if wanted:
        reason = named(wanted).refusal(device, dtype, width)
        if reason:
            raise RuntimeError(f"RELVLM_KERNELS={wanted}: {reason}")
        return wanted
    order = ORDER.get(device.type, (SLOW,))
    refusals: dict[str, str] = {}
    for name in order:
        reason = BACKENDS[name].refusal(device, dtype, width)
        if not reason:
            break
        refusals[name] = reason
    if refusals:
        _warn_of_fall(name, device.type, tuple(f"{skipped}: {reason}" for skipped, reason in refusals.items()))
    return name


@cache
def _warn_of_fall(name: str, device: str, reasons: tuple[str, ...]) -> None:
    what = "plain PyTorch, several times slower," if name == SLOW else name
    warnings.warn(
        f"relvlm_kernels: {what} runs on the {device} instead of better kernels: {'; '.join(reasons)}",
        RuntimeWarning,
        stacklevel=4,  # who asked `chosen`
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
    reason = found.missing if found else f"usable: {', '.join(n for n, b in BACKENDS.items() if not b.missing)}"
    raise RuntimeError(f"RELVLM_KERNELS={name}: no such backend here ({reason})")
