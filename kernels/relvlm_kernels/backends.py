"""Which implementations of the ops can run here, and which one runs for a device and dtype.

`reference`: plain PyTorch, any device and dtype. `cpu`: C++ (csrc/cpu), CPU tensors of float32 and float64; it has
the two attention ops, the other two being matrix products and gathers that PyTorch runs well.

Unless RELVLM_KERNELS names one, `cpu` runs where it can and `reference` everywhere else (that includes bfloat16
and float16 on the CPU); a warning says so, once, where `cpu` would run if it had been built. RELVLM_KERNELS=cpu is
an error where the library is not there; tensors that the named backend cannot take, such as those of a GPU, are an
error as well.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from types import ModuleType

import torch

from relvlm_kernels import cpu, reference


def _takes_all(device: torch.device, dtype: torch.dtype) -> bool:
    return True


@dataclass(frozen=True)
class Backend:
    """`missing` says why the backend cannot run here; empty where it can. `takes`: devices and dtypes it runs."""

    name: str
    missing: str = ""
    ops: ModuleType = reference
    takes: Callable[[torch.device, torch.dtype], bool] = _takes_all


def _cpu_takes(device: torch.device, dtype: torch.dtype) -> bool:
    return device.type == "cpu" and dtype in cpu.DTYPES


REFERENCE = Backend("reference")
CPU = Backend("cpu", cpu.missing(), cpu, _cpu_takes)
BACKENDS = [REFERENCE, CPU]


def chosen(device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> Backend:
    """The backend that runs for tensors of `device` and `dtype`.

    Raises RuntimeError where RELVLM_KERNELS names one that is unknown, cannot run here or cannot take them.
    """
    device = torch.device(device)
    wanted = os.environ.get("RELVLM_KERNELS")
    if wanted:
        backend = named(wanted)
        if not backend.takes(device, dtype):
            raise RuntimeError(f"RELVLM_KERNELS={wanted}: no kernels for {dtype} on {device}")
        return backend
    if not CPU.takes(device, dtype):
        return REFERENCE
    if CPU.missing:
        _warn_of_slow_cpu()
        return REFERENCE
    return CPU


@cache
def _warn_of_slow_cpu() -> None:
    warnings.warn(
        f"relvlm_kernels: plain PyTorch runs on the CPU, several times slower than the compiled kernels, which are "
        f"not usable: {CPU.missing}",
        RuntimeWarning,
        stacklevel=3,
    )


def named(name: str) -> Backend:
    """The backend of that name; raises RuntimeError where it is unknown or cannot run here."""
    found = next((backend for backend in BACKENDS if backend.name == name), None)
    if found and not found.missing:
        return found
    reason = found.missing if found else f"usable: {', '.join(b.name for b in BACKENDS if not b.missing)}"
    raise RuntimeError(f"RELVLM_KERNELS={name}: no such backend here ({reason})")
