"""What is measured, on which device: the GPU in bf16, or in a rehearsal the CPU in fp32 at toy size."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from support.shapes import QUICK, RECIPE, Shape, for_cuda, toy

from gpu_check.check import Check
from relvlm_kernels.backends import BACKENDS

EMULATED = "GPU_CHECK_EMULATED"  # in a rehearsal: the cuda kernels built for a CPU (tests/kernels/cuda_shim)
MEASURED = ("cuda", "triton")


@dataclass(frozen=True)
class Target:
    """`dtype`: Triton's interpreter gets bf16 wrong. `emulated`: heads as wide as those kernels are built for."""

    device: torch.device
    dtype: torch.dtype
    toy: bool
    emulated: bool

    def shapes(self) -> list[Shape]:
        """The benchmark's and the recipe's."""
        if not self.toy:
            return [*map(for_cuda, QUICK), *RECIPE]
        return [self._small(shape) for shape in (RECIPE[0], RECIPE[2])]

    def _small(self, shape: Shape) -> Shape:
        fewer = {"regions": min(shape.regions, 2), "whole": min(shape.whole, 1), "images": 1}
        small = vars(toy(shape)) | fewer | {"grid": (3, 5), "heads": 1}
        return Shape(**small | {"width": 32 if self.emulated else 16})


def target(check: Check) -> Target:
    if check.rehearsal:
        return Target(torch.device("cpu"), torch.float32, True, bool(os.environ.get(EMULATED)))
    return Target(torch.device("cuda"), torch.bfloat16, False, False)


def backends(here: Target) -> tuple[dict[str, ModuleType], dict[str, str]]:
    """The GPU's backends that can run, and of the others why not."""
    if here.toy:
        return _stand_ins()
    usable = {name: BACKENDS[name] for name in MEASURED if not BACKENDS[name].missing}
    missing = {name: BACKENDS[name].missing for name in MEASURED if name not in usable}
    return {name: backend.ops for name, backend in usable.items()}, missing


def spare_the_compiler() -> None:
    """In a rehearsal what torch.compile would make runs as it is: minutes of compiling for a CPU would show nothing."""
    torch.compile = lambda function, **_: function  # type: ignore[assignment]


def _stand_ins() -> tuple[dict[str, ModuleType], dict[str, str]]:
    """Triton's interpreter, and CUDA's kernels emulated where they are built."""
    triton, library = BACKENDS["triton"], os.environ.get(EMULATED)
    found = {} if triton.missing else {"triton": _named(triton.ops)}
    missing = {"triton": triton.missing} if triton.missing else {}
    if not library:
        return found, missing | {"cuda": "left out of this rehearsal: not emulated"}
    _emulate(library)
    return {"cuda": BACKENDS["cuda"].ops} | found, missing


def _named(ops: ModuleType) -> ModuleType:
    """Interpreted kernels under their names in a profile, where a GPU's would stand."""
    from relvlm_kernels.triton import launch

    plain = launch.start

    def start(kernel: Any, *rest: Any) -> None:
        with torch.profiler.record_function(kernel.fn.__name__):
            plain(kernel, *rest)

    launch.start = start
    return ops


def _emulate(path: str) -> None:
    """Lets the backend run that library on CPU tensors."""
    from relvlm_kernels.cuda import library

    library.LIBRARY.path = Path(path)
    library.current_device, library.current_stream = (lambda: 0), (lambda device: 0)
