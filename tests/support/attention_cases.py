"""Inputs of the ops for tests and checks: boxes and sequences of every kind, and how the ops of a backend are run.

Tensors are fp64 on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from relvlm_kernels import Regions, region_attention, varlen_attention

Index = tuple[Regions] | tuple[Tensor, Tensor]  # of region and of varlen attention
NAMES = ("out", "lse", "dq", "dk", "dv")  # what `results` gives
SMALL_GRID = (3, 4)
NO_INDEX = 0x70707070


def small_regions() -> Regions:
    """Six groups, 12 queries, on images 2 and 0 of three, in no order: one without tokens, one patch, all flags."""
    box = [[0, 0, 4, 3], [0, 0, 1, 1], [3, 2, 4, 3], [1, 0, 3, 2], [0, 1, 4, 2], [0, 0, 4, 3]]
    return Regions(
        offsets=torch.tensor([0, 3, 3, 5, 6, 10, 12]).int(), image=torch.tensor([2, 0, 0, 2, 0, 2]).int(),
        box=torch.tensor(box).int(), prefix=torch.tensor([1, 1, 0, 0, 1, 1]).bool(),
        mean=torch.tensor([0, 1, 1, 1, 1, 0]).bool(), grid=SMALL_GRID,
    )  # fmt: skip


def small_qkv(dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """q of the small regions, k and v of their images, as leaves."""
    q, k, v = _random(torch.Generator().manual_seed(0), (12, 2, 8), (3, 13, 2, 8), (3, 13, 2, 8))
    return [x.to(dtype).requires_grad_() for x in (q, k, v)]


def small_attention(op: str, q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
    """Either op on `small_qkv`: "region", or "varlen" with two sequences of keys out of the images."""
    if op == "region":
        return region_attention(q, k, v, small_regions(), **options)
    cu_q, cu_k = torch.tensor([0, 5, 12]).int(), torch.tensor([0, 13, 39]).int()
    return varlen_attention(q, k.flatten(0, 1), v.flatten(0, 1), cu_q, cu_k, **options)


def region_case(
    width: int, grid: tuple[int, int] = (5, 7), prefix: int = 1, images: int = 4, groups: int = 13, heads: int = 3,
    longest: int = 77, seed: int = 0,
) -> tuple[list[Tensor], tuple[Regions]]:  # fmt: skip
    """Random boxes and flags: a group without tokens and one of `longest`, one-patch and whole boxes, equal
    neighbours, one image without a group."""
    generator = torch.Generator().manual_seed(seed)

    def draw(high: int, *shape: int) -> Tensor:
        return torch.randint(0, high, shape, generator=generator)

    lengths = draw(9, groups)
    lengths[1], lengths[2] = 0, longest
    low = torch.stack([draw(grid[1], groups), draw(grid[0], groups)], 1)
    high = torch.minimum(low + 1 + draw(9, groups, 2), torch.tensor([grid[1], grid[0]]))
    box = torch.cat([low, high], 1)
    box[3, 2:] = box[3, :2] + 1
    box[4:7] = torch.tensor([0, 0, grid[1], grid[0]])
    image = draw(images - 1, groups)
    image[4:7] = 0
    flags = draw(2, 2, groups).bool()
    flags[:, 4:6] = True
    regions = Regions(offsets_of(lengths), image.int(), box.int(), *flags, grid)
    keys = (images, prefix + grid[0] * grid[1], heads, width)
    return _random(generator, (int(lengths.sum()), heads, width), keys, keys), (regions,)


def varlen_case(width: int, heads: int = 3, seed: int = 0) -> tuple[list[Tensor], tuple[Tensor, Tensor]]:
    """Sequences of 0 to 90 queries and 0 to 70 keys, numbers of their own."""
    lengths_q, lengths_k = torch.tensor([3, 0, 17, 90, 1, 8, 2]), torch.tensor([7, 4, 16, 70, 1, 33, 0])
    queries, keys = ((int(n.sum()), heads, width) for n in (lengths_q, lengths_k))
    tensors = _random(torch.Generator().manual_seed(seed), queries, keys, keys)
    return tensors, (offsets_of(lengths_q), offsets_of(lengths_k))


def case(op: str, width: int, **options: Any) -> tuple[list[Tensor], Index]:
    """Of "region_attention" or "varlen_attention"."""
    return region_case(width, **options) if op == "region_attention" else varlen_case(width, **options)


def outside_case(op: str, width: int, **options: Any) -> tuple[list[Tensor], Index]:
    """`case` with more rows before and after: queries that no group or sequence owns, and keys of no sequence."""
    (q, k, v), index = case(op, width, **options)
    q = torch.cat([q[:5], q, q[:70]])
    if op == "region_attention":
        return [q, k, v], (replace(index[0], offsets=index[0].offsets + 5),)
    k, v = (torch.cat([x[:3], x, x[:70]]) for x in (k, v))
    return [q, k, v], (index[0] + 5, index[1] + 3)


def offsets_of(lengths: Tensor) -> Tensor:
    return torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]).int()


def moved(index: Index, device: torch.device | str) -> Index:
    """The same on another device."""
    if isinstance(index[0], Regions):
        return (index[0].map(lambda x: x.to(device)),)
    return tuple(x.to(device) for x in index)


def wave(out: Tensor) -> Tensor:
    """A gradient of `out` that every dtype holds exactly: a function of the place."""
    place = torch.arange(out.numel(), device=out.device, dtype=torch.float64)
    return place.mul(0.7).sin().mul(64).round().div(64).view(out.shape).to(out.dtype)


def results(
    module: ModuleType, op: str, tensors: list[Tensor], index: Index, scale: float, dropout: float = 0.0,
    seed: Tensor | None = None,
) -> tuple[Tensor, ...]:  # fmt: skip
    """Output, log-sum-exp and the gradients of q, k and v that a backend gives."""
    rest = (*index, scale, dropout, seed)
    out, lse = getattr(module, op)(*tensors, *rest)
    return out, lse, *getattr(module, f"{op}_backward")(wave(out), *tensors, out, lse, *rest)


def rms(x: Tensor) -> float:
    """Root of the mean square, of what is finite."""
    return float(x[x.isfinite()].square().mean().sqrt())


def box_case(width: int = 24, prefix: int = 1, seed: int = 6) -> tuple[Tensor, Tensor, tuple]:
    """Of box_mean: x (4, prefix + 35, width), a gradient of its output, and its other arguments."""
    _, (regions,) = region_case(4, prefix=prefix)
    shapes = (4, prefix + 35, width), (len(regions.image), width)
    x, grad = _random(torch.Generator().manual_seed(seed), *shapes)
    return x, grad, (regions.box, regions.image, regions.grid)


def poisoning(empty: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`torch.empty` or the like whose memory begins as NaN, or as no index: what a kernel leaves unwritten shows."""

    def filled(*args: Any, **options: Any) -> Tensor:
        out = empty(*args, **options)
        if out.is_floating_point():
            return out.fill_(torch.nan)
        return out.fill_(True if out.dtype == torch.bool else min(NO_INDEX, torch.iinfo(out.dtype).max))

    return filled


def _random(generator: torch.Generator, *shapes: tuple[int, ...]) -> list[Tensor]:
    return [torch.randn(shape, dtype=torch.float64, generator=generator) for shape in shapes]
