"""Four tiny cases, forward and backward, for a sanitizer to watch; compared with the plain ops in fp64 on the CPU."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import torch
from support.attention_cases import case, moved, region_case, results
from torch import Tensor

from gpu_check.check import Check
from gpu_check.target import Target, backends, target
from relvlm_kernels import reference

SCALE, DROPOUT, SEED = 0.2, 0.1, torch.tensor([7])
BOUND = {torch.float32: 2e-5, torch.bfloat16: 4e-2, torch.float16: 6e-3}  # of the largest number
SMALL = {"images": 3, "groups": 9, "longest": 20, "heads": 2}


def main(check: Check) -> int:
    here = target(check)
    usable, missing = backends(here)
    for name, why in missing.items():
        check.row(what="missing", backend=name, why=why)
    rows = [_row(usable[one[0]], *one, here) for one in _cases(here) if one[0] in usable]
    for row in rows:
        check.row(what="case", **row)
    return int(not all(row["sound"] for row in rows))


def _cases(here: Target) -> list[tuple[str, str, torch.dtype, int]]:
    """Backend, op, dtype and width of a head."""
    width = 32 if here.emulated else 64
    return [
        ("cuda", "region_attention", torch.bfloat16, width), ("cuda", "varlen_attention", torch.float32, width),
        ("cuda", "pooling", torch.float16, 64), ("triton", "region_attention", torch.bfloat16, width),
    ]  # fmt: skip


def _row(ops: ModuleType, backend: str, op: str, dtype: torch.dtype, width: int, here: Target) -> dict[str, Any]:
    dtype = torch.float32 if here.toy else dtype
    off = pooling(ops, here, dtype, width) if op == "pooling" else attention(ops, op, here, dtype, width)
    about = {"backend": backend, "op": op, "dtype": str(dtype).removeprefix("torch."), "width": width}
    return about | {"off": off, "sound": off <= BOUND[dtype]}


def attention(ops: ModuleType, op: str, here: Target, dtype: torch.dtype, width: int) -> float:
    """The largest error of output and gradients, with dropout, of the largest number."""
    tensors, index = case(op, width, **(SMALL if op == "region_attention" else {}))
    low = [x.to(dtype) for x in tensors]
    wanted = results(reference, op, [x.double() for x in low], index, SCALE, DROPOUT, SEED)
    there = [x.to(here.device) for x in low], moved(index, here.device)
    found = results(ops, op, *there, SCALE, DROPOUT, SEED.to(here.device))
    return _off(found[:1] + found[2:], wanted[:1] + wanted[2:])


def pooling(ops: ModuleType, here: Target, dtype: torch.dtype, width: int) -> float:
    """The largest error of `box_mean` and `mrc_pool`, and of their gradients."""
    regions = region_case(width, **SMALL)[1][0]
    generator, rows = torch.Generator().manual_seed(0), torch.tensor([[0, 3, 3], [1, 2, 0]])
    shapes = (3, 36, width), (9, width), (9, width), (70, 2 * width), (70,), (3, 70)
    tensors = [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]

    def run(module: ModuleType, device: torch.device, as_type: torch.dtype) -> list[Tensor]:
        x, grad, h, weight, bias, dout = (t.to(device, as_type) for t in tensors)
        index = regions.box.to(device), regions.image.to(device), regions.grid
        inputs = h, *rows.to(device), weight, bias
        out = module.mrc_pool(*inputs)
        means = [module.box_mean(x, *index), module.box_mean_backward(grad, x, *index)]
        return [*means, out, *module.mrc_pool_backward(dout, *inputs, out)]

    return _off(run(ops, here.device, dtype), run(reference, torch.device("cpu"), torch.float64))


def _off(found: Any, wanted: Any) -> float:
    pairs = zip(found, wanted, strict=True)
    return max(float((a.cpu().double() - b).abs().max() / b.abs().max()) for a, b in pairs)


if __name__ == "__main__":
    sys.exit(main(Check.from_arguments("sanitizer")))
