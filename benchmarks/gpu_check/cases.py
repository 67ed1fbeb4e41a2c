"""Four tiny cases, forward and backward, for a sanitizer to watch; compared with the plain ops in fp64 on the CPU."""

from __future__ import annotations

import sys
from dataclasses import replace
from types import ModuleType
from typing import Any

import torch
from support.shapes import Shape, make_batch
from torch import Tensor

from gpu_check.check import Check
from gpu_check.target import Target, backends, target
from relvlm_kernels import Regions, reference

SCALE, SEED = 0.2, 7
BOUND = {torch.float32: 1e-5, torch.bfloat16: 4e-2, torch.float16: 6e-3}  # of the largest number
BOXES = Shape("boxes", 2, (5, 7), 3, (0.2, 0.9), (1, 9), heads=2, prefix=1, whole=1, mean=True)


def main(check: Check) -> int:
    here = target(check)
    usable, missing = backends(here)
    for name, why in missing.items():
        check.row(what="missing", backend=name, why=why)
    rows = [_row(usable[case[0]], *case, here) for case in _cases(here) if case[0] in usable]
    for row in rows:
        check.row(what="case", **row)
    return int(not all(row["sound"] for row in rows))


def _cases(here: Target) -> list[tuple[str, str, torch.dtype, int]]:
    """Backend, op, dtype and width of a head."""
    width = 32 if here.emulated else 64
    return [
        ("cuda", "region_attention", torch.bfloat16, width), ("cuda", "varlen_attention", torch.float32, width),
        ("cuda", "pooling", torch.float16, 64), ("triton", "region_attention", torch.bfloat16, 64),
    ]  # fmt: skip


def _row(
    ops: ModuleType, backend: str, op: str, dtype: torch.dtype, width: int, here: Target
) -> dict[str, Any]:
    dtype = torch.float32 if here.toy else dtype
    off = pooling(ops, here, dtype, width) if op == "pooling" else attention(ops, op, here, dtype, width)
    about = {"backend": backend, "op": op, "dtype": str(dtype), "width": width}
    return about | {"off": off, "sound": off <= BOUND[dtype]}


def attention(ops: ModuleType, op: str, here: Target, dtype: torch.dtype, width: int) -> float:
    """The largest error of output and gradients, with dropout, of the largest number."""
    tensors, index = region_case(width) if op == "region_attention" else varlen_case(width)
    low = [x.to(dtype) for x in tensors]
    wanted = _both_ways(reference, op, [x.double() for x in low], index, torch.tensor([SEED]))
    moved = [x.to(here.device) for x in low], _on(index, here.device), torch.tensor([SEED]).to(here.device)
    return _off(_both_ways(ops, op, *moved), wanted)


def region_case(width: int) -> tuple[list[Tensor], tuple[Any, ...]]:
    shape = replace(BOXES, width=width)
    batch = make_batch(shape, torch.device("cpu"))
    queries = (int(batch.lengths.sum()), shape.heads, width)
    keys = (shape.images, shape.keys, shape.heads, width)
    return _drawn(queries, keys, keys), (batch.regions,)


def varlen_case(width: int) -> tuple[list[Tensor], tuple[Any, ...]]:
    cu_q, cu_k = torch.tensor([0, 3, 3, 20, 90]).int(), torch.tensor([0, 70, 75, 76, 96]).int()
    return _drawn((90, 2, width), (96, 2, width), (96, 2, width)), (cu_q, cu_k)


def pooling(ops: ModuleType, here: Target, dtype: torch.dtype, width: int) -> float:
    """The largest error of `box_mean` and `mrc_pool`, and of their gradients."""
    regions = make_batch(BOXES, torch.device("cpu")).regions
    index = regions.box, regions.image, regions.grid
    rows = torch.tensor([[0, 3, 3], [1, 2, 0]])
    tensors = [
        x.to(dtype) for x in _drawn((2, 36, width), (8, width), (9, width), (70, 2 * width), (70,), (3, 70))
    ]

    def results(module: ModuleType, device: torch.device, as_type: torch.dtype) -> list[Tensor]:
        x, grad, h, weight, bias, dout = (t.to(device, as_type) for t in tensors)
        box, image, grid = (t.to(device) if isinstance(t, Tensor) else t for t in index)
        inputs = h, *rows.to(device), weight, bias
        out = module.mrc_pool(*inputs)
        means = [module.box_mean(x, box, image, grid), module.box_mean_backward(grad, x, box, image, grid)]
        return [*means, out, *module.mrc_pool_backward(dout, *inputs, out)]

    return _off(results(ops, here.device, dtype), results(reference, torch.device("cpu"), torch.float64))


def _both_ways(module: ModuleType, op: str, tensors: list[Tensor], index: Any, seed: Tensor) -> list[Tensor]:
    out, lse = getattr(module, op)(*tensors, *index, SCALE, 0.1, seed)
    grad = torch.linspace(-1, 1, out.numel()).sin().view(out.shape).to(out)
    return [out, *getattr(module, f"{op}_backward")(grad, *tensors, out, lse, *index, SCALE, 0.1, seed)]


def _off(found: list[Tensor], wanted: list[Tensor]) -> float:
    pairs = zip(found, wanted, strict=True)
    return max(float((a.cpu().double() - b).abs().max() / b.abs().max()) for a, b in pairs)


def _drawn(*shapes: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def _on(index: tuple[Any, ...], device: torch.device) -> tuple[Any, ...]:
    if not isinstance(index[0], Regions):
        return tuple(x.to(device) for x in index)
    tensors = {name: x.to(device) for name, x in vars(index[0]).items() if isinstance(x, Tensor)}
    return (Regions(**tensors, grid=index[0].grid),)


if __name__ == "__main__":
    sys.exit(main(Check.from_arguments("sanitizer")))
