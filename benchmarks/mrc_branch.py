"""The MRC branch behind the queries: projections, attention, pooling, loss; forward and backward of each way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from agreement import TOLERANCE, drawn, off_by
from mrc_ways import Way, Weights
from support.footprint import peak_bytes
from support.shapes import Batch
from timing import Times, interleaved, speedup
from torch import Tensor

RELATIONS, HIDDEN = 310, 3072  # of GQA's graphs; of the MRC head at base size


@dataclass(frozen=True)
class Branch:
    """Its weights, as `torch.nn.Linear`'s, and the relation of each triplet.

    `kv` holds those of `key` and `value` in one layer, as the fusion encoder does.
    """

    weights: Weights
    relation_R: Tensor

    @classmethod
    def random(cls, batch: Batch, dtype: torch.dtype) -> Branch:
        dim, device = batch.shape.dim, batch.lengths.device
        shapes = {
            "key": (dim, dim), "value": (dim, dim), "out": (dim, dim), "first": (HIDDEN, 2 * dim),
            "second": (RELATIONS, HIDDEN),
        }  # fmt: skip
        generator = torch.Generator().manual_seed(1)
        weights: Weights = {}
        for name, shape in shapes.items():
            weight = torch.randn(shape, generator=generator, dtype=torch.float64) * shape[1] ** -0.5
            bias = torch.randn(shape[0], generator=generator, dtype=torch.float64) * 0.1
            weights[name] = weight.to(device, dtype), bias.to(device, dtype)
        key, value = weights["key"], weights["value"]
        weights["kv"] = torch.cat([key[0], value[0]]), torch.cat([key[1], value[1]])
        triplets = len(batch.lengths) // 2
        relation = torch.randint(RELATIONS, (triplets,), generator=generator).to(device)
        branch = cls(weights, relation)
        for x in branch.leaves():
            x.requires_grad_()
        return branch

    def leaves(self) -> list[Tensor]:
        return [x for layer in self.weights.values() for x in layer]

    def loss(self, way: Way, q: Tensor, image_BSD: Tensor) -> Tensor:
        """`q` in the way's layout."""
        attended = way.cross_attend(q, image_BSD, self.weights)
        h = F.linear(attended.flatten(-2), *self.weights["out"]).flatten(0, -2)
        hidden = way.pool(h, *self.weights["first"])
        return F.cross_entropy(F.linear(hidden, *self.weights["second"]).float(), self.relation_R)


def measure_branch(
    batch: Batch, ways: list[Way], device: torch.device, dtype: torch.dtype, repeats: int
) -> dict[str, dict[str, Any]]:
    """Time and peak memory of each way; of one that fails, or whose gradients are others, what is wrong."""
    branch, shape = Branch.random(batch, dtype), batch.shape
    seeded = torch.Generator().manual_seed(2)  # another image may meet a ReLU's kink, where ways may rightly differ
    image = torch.randn(shape.images, shape.keys, shape.dim, generator=seeded).to(device, dtype).requires_grad_()
    queries = {way.name: drawn(way, dtype)[0] for way in ways}
    leaves = [image, *branch.leaves()]

    def prepare(way: Way, _: int = 0) -> Callable[[], Any]:
        """Gradients are returned where it runs again and again: none is added to another."""
        q = queries[way.name]
        for x in [q, *leaves]:
            x.grad = None
        if device.type == "cuda":
            return lambda: torch.autograd.grad(branch.loss(way, q, image), [q, *leaves], allow_unused=True)
        return lambda: branch.loss(way, q, image).backward()

    sides = {way.name: partial(prepare, way) for way in ways}
    times = interleaved(sides, device, min(repeats, max(repeats // 2, 3)))
    sound = [way for way in ways if not times[way.name].error]
    cells = {name: _cell(found, times.get("ours")) for name, found in times.items()}
    for way in sound:
        prepare(way)
        loss = partial(branch.loss, way, queries[way.name], image)
        cells[way.name]["peak_bytes"] = peak_bytes(lambda loss=loss: loss().backward(), device)
    for cell in cells.values():
        if "peak_bytes" in cell and "peak_bytes" in cells.get("ours", {}):
            cell["peak_ratio"] = cell["peak_bytes"] / cells["ours"]["peak_bytes"]
    if not shape.dropout:
        _note_disagreements(cells, sound, branch, queries, image, TOLERANCE[dtype])
    return cells


def _cell(found: Times, ours: Times | None) -> dict[str, Any]:
    if found.error:
        return {"error": found.error}
    ratio = {"ratio": speedup(found, ours)} if ours and not ours.error else {}
    return {"ms": found.median * 1e3, "how": found.how} | ratio


def _note_disagreements(
    cells: dict[str, dict[str, Any]], ways: list[Way], branch: Branch, queries: dict[str, Tensor], image: Tensor,
    tolerance: float,
) -> None:  # fmt: skip
    """`off` of the ways whose gradient of the image is not that of the last one."""
    grads = [torch.autograd.grad(branch.loss(way, queries[way.name], image), image)[0] for way in ways]
    for way, grad in zip(ways, grads, strict=True):
        off = off_by(grad, grads[-1])
        cells[way.name] |= {} if off <= tolerance else {"off": {"dimage": off}}
