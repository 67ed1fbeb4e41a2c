"""Inputs of the ways to attend, and how far what they give is from masked attention in fp64."""

from __future__ import annotations

import torch
from mrc_ways import Masked, Way
from torch import Tensor

TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.03, torch.float16: 4e-3}  # of the largest number


def disagreement(way: Way, dtype: torch.dtype, exact: list[Tensor]) -> dict[str, float]:
    """Of "out", "dq", "dk" and "dv", those that are off by more than the tolerance, and by how much of the largest."""
    names = ("out", "dq", "dk", "dv")
    found = {name: off_by(a, b) for name, a, b in zip(names, outputs(way, dtype), exact, strict=False)}
    return {name: off for name, off in found.items() if not off <= TOLERANCE[dtype]}


def exact_outputs(masked: Masked) -> list[Tensor]:
    return outputs(masked, torch.float64)


def off_by(found: Tensor, wanted: Tensor) -> float:
    """The largest difference, of the largest number."""
    return float((found.double() - wanted).abs().max() / wanted.abs().max())


def drawn(way: Way, dtype: torch.dtype, seed: int = 2) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """q in the way's layout, k and v of each image, and the gradient of the packed output."""
    shape, generator = way.batch.shape, torch.Generator(way.device).manual_seed(seed)
    heads = (shape.heads, shape.width)

    def draw(*rows: int) -> Tensor:
        return torch.randn(*rows, *heads, generator=generator, device=way.device).to(dtype)

    q, k, v, grad = (
        draw(len(way.packed)),
        *(draw(shape.images, shape.keys) for _ in range(2)),
        draw(len(way.packed)),
    )
    q, k, v = (x.requires_grad_(way.backward) for x in (way.layout(q), k, v))
    return q, k, v, way.layout(grad)


def outputs(way: Way, dtype: torch.dtype) -> list[Tensor]:
    """Packed output, and the gradients of packed queries and of each image's keys and values."""
    q, k, v, grad = drawn(way, dtype)
    out = way.attend(q, way.tokens(k), way.tokens(v))
    found = [way.rows(out.detach())]
    if way.backward:
        dq, dk, dv = torch.autograd.grad(out, (q, k, v), grad)
        found += [way.rows(dq), dk, dv]
    return found
