"""The one place where kernels start."""

from __future__ import annotations

from typing import Any

import torch


def launch(
    kernel: Any,
    programs: int,
    arguments: dict[str, Any],
    warps: int = 4,
    stages: int = 1,
    registers: int | None = None,
) -> None:
    """Runs so many programs on the device of the tensors; none where there is nothing to do.

    stages: tiles in flight. registers: at most so many per thread, for more programs at a time.
    """
    if programs == 0:
        return
    options: dict[str, Any] = {"num_warps": warps, "num_stages": stages}
    if registers:
        options["maxnreg"] = registers
    if torch.version.hip:
        options = for_amd(options)
    with torch.cuda.device_of(next(x for x in arguments.values() if isinstance(x, torch.Tensor))):
        start(kernel, programs, arguments | options)


def start(kernel: Any, programs: int, arguments: dict[str, Any]) -> None:
    """Apart, so that benchmarks/aot can compile what would start here."""
    kernel[(programs,)](**arguments)


def cdiv(a: int, b: int) -> int:
    """a / b, rounded up; Triton's own, which its kernels may call as well, is twenty calls."""
    return -(-a // b)


def power_of_2(x: int) -> int:
    """The least that is not below `x`."""
    return 1 << (x - 1).bit_length()


def dense_rows(x: torch.Tensor) -> torch.Tensor:
    """`x` as it is where its last dimension is dense; slices of a joint projection need no copy."""
    return x if x.stride(-1) == 1 else x.contiguous()


def for_amd(options: dict[str, Any]) -> dict[str, Any]:
    """AMD's compiler knows no `maxnreg`, and with tiles in flight it runs out of registers."""
    return {name: x for name, x in options.items() if name != "maxnreg"} | {"num_stages": 1}
