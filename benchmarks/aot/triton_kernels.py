"""Compiles the Triton kernels for GPUs that are not here, through the calls that a training step makes."""

from __future__ import annotations

import re
import subprocess
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import torch

from aot.table import Row
from relvlm_kernels import Regions

B, TOKENS_EACH, GROUPS, HEADS, GRID = 8, 5, 128, 12, (14, 14)  # sizes choose tiles; the code has none in it
ASSEMBLY_TENSOR_CORE = re.compile(r"\b(?:[HQ]G?MMA|UTC\w*MMA)\b")  # mma.sync, wgmma, tcgen05
LOCAL_MEMORY = re.compile(r"\b(?:STL|LDL)\b")


def version() -> str:
    """Key of the table; raises ImportError where there is no Triton."""
    import triton

    return f"triton {triton.__version__}"


def measure(wanted: str) -> Iterator[tuple[str, Row]]:
    """(name, resources) of each kernel, case and target whose name holds `wanted`."""
    for target in ("sm_80", "sm_90", "sm_100", "gfx942"):
        for name, call in _cases():
            if target in ("sm_100", "gfx942") and "D=64 bfloat16" not in name:
                continue
            if wanted in f"{name} {target}":
                yield from _compiled(f"{name} {target}", target, call)


def _cases() -> Iterator[tuple[str, Callable[[], None]]]:
    widths = {torch.bfloat16: (32, 64, 80, 128), torch.float32: (64, 128)}
    for dtype, width in ((dtype, width) for dtype, each in widths.items() for width in each):
        name = f"D={width} {str(dtype).removeprefix('torch.')}"
        yield f"region {name}", partial(_region, width, dtype, 0.0)
    yield "region dropout D=64 bfloat16", partial(_region, 64, torch.bfloat16, 0.1)
    yield "varlen D=64 bfloat16", partial(_varlen, 64, torch.bfloat16)
    for dtype in (torch.bfloat16, torch.float32):
        yield f"pool D=768 {str(dtype).removeprefix('torch.')}", partial(_pool, dtype)


def _region(width: int, dtype: torch.dtype, dropout: float) -> None:
    from relvlm_kernels import triton as ops

    q = torch.empty(GROUPS * TOKENS_EACH, HEADS, width, dtype=dtype)
    k = torch.empty(B, 1 + GRID[0] * GRID[1], HEADS, width, dtype=dtype)
    offsets = torch.arange(GROUPS + 1, dtype=torch.int32) * TOKENS_EACH
    regions = Regions.whole(offsets, torch.zeros(GROUPS, dtype=torch.int32), GRID)
    rest = (regions, 0.1, dropout, torch.zeros(1, dtype=torch.int64))
    out, lse = ops.region_attention(q, k, k, *rest)
    ops.region_attention_backward(q, q, k, k, out, lse, *rest, (q, *torch.stack([k, k], 2).unbind(2)))


def _varlen(width: int, dtype: torch.dtype) -> None:
    from relvlm_kernels import triton as ops

    q, cu = torch.empty(GROUPS * 16, HEADS, width, dtype=dtype), torch.zeros(GROUPS + 1, dtype=torch.int32)
    out, lse = ops.varlen_attention(q, q, q, cu, cu, 0.1, 0.0, None)
    ops.varlen_attention_backward(q, q, q, q, out, lse, cu, cu, 0.1, 0.0, None)


def _pool(dtype: torch.dtype) -> None:
    from relvlm_kernels import triton as ops

    x, rows = torch.empty(B, 1 + GRID[0] * GRID[1], 768, dtype=dtype), torch.zeros(GROUPS, dtype=torch.int64)
    box = torch.zeros(GROUPS, 4, dtype=torch.int32)
    ops.box_mean_backward(ops.box_mean(x, box, rows, GRID), x, box, rows, GRID)
    arguments = x[0], rows, rows, torch.empty(768, 2 * 768, dtype=dtype), torch.empty(768, dtype=dtype)
    out = ops.mrc_pool(*arguments)
    ops.mrc_pool_backward(out, *arguments, out)


def _compiled(name: str, target: str, call: Callable[[], None]) -> Iterator[tuple[str, Row]]:
    with _instead_of_starting(target) as kernels:
        call()
    read = _of_amd if target.startswith("gfx") else partial(_of_nvidia, target)
    for kernel in kernels:
        yield f"{kernel.metadata.name.removeprefix('_')} {name}", read(kernel)


@contextmanager
def _instead_of_starting(target: str) -> Iterator[list[Any]]:
    """While it lasts, kernels are compiled for `target` where they would start. Yields the list of them."""
    from triton.backends.compiler import GPUTarget
    from triton.runtime.driver import driver

    from relvlm_kernels.triton import launch

    amd = target.startswith("gfx")
    gpu = GPUTarget("hip", target, 64) if amd else GPUTarget("cuda", int(target.removeprefix("sm_")), 32)
    found: list[Any] = []

    def compile_only(kernel: Any, programs: int, arguments: dict[str, Any]) -> None:
        options = launch.for_amd(arguments) if amd else arguments
        with warnings.catch_warnings(action="ignore"):
            found.append(kernel.warmup(grid=(programs,), **options))

    start, launch.start = launch.start, compile_only
    pretended = SimpleNamespace(
        get_current_target=lambda: gpu, get_current_device=lambda: target, get_current_stream=lambda _: 0
    )
    driver.set_active(pretended)
    try:
        yield found
    finally:
        launch.start = start


def _of_nvidia(target: str, kernel: Any) -> Row:
    """Resources as the assembler left them, read from the binary with the tools that Triton brings along."""
    from triton.backends import nvidia

    with TemporaryDirectory() as folder:
        binary = Path(folder) / "kernel.cubin"
        binary.write_bytes(kernel.asm["cubin"])
        dump = Path(nvidia.__file__).parent / "bin" / "cuobjdump"
        usage, code = (
            subprocess.run([dump, option, binary], capture_output=True, text=True, check=True).stdout
            for option in ("-res-usage", "-sass")
        )
    registers = int(re.search(r"REG:(\d+)", usage)[1])
    return Row.of(
        target, registers=registers, spills=len(LOCAL_MEMORY.findall(code)), shared=kernel.metadata.shared,
        tensor_core=len(ASSEMBLY_TENSOR_CORE.findall(code)), warps=kernel.metadata.num_warps,
    )  # fmt: skip


def _of_amd(kernel: Any) -> Row:
    code = kernel.asm["amdgcn"]
    found = {name: int(re.search(rf"\.{name}:\s+(\d+)", code)[1]) for name in ("vgpr_count", "vgpr_spill_count")}
    return Row(
        registers=found["vgpr_count"], spills=found["vgpr_spill_count"], shared=kernel.metadata.shared,
        tensor_core=len(re.findall(r"\bv_mfma_", code)), warps_per_sm=0,
    )  # fmt: skip
