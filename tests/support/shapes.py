"""The shapes that `mrc_kernel.py` measures, and random batches of them. Tests may import this."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from relvlm_kernels import Regions


@dataclass(frozen=True)
class Shape:
    """`sides`: of the boxes, as fractions of the image; `tokens`: fewest and most of a region's label."""

    name: str
    images: int
    grid: tuple[int, int]
    regions: int  # of an image
    sides: tuple[float, float]
    tokens: tuple[int, int] = (3, 7)
    heads: int = 12
    width: int = 64
    prefix: int = 1

    @property
    def keys(self) -> int:
        return self.prefix + self.grid[0] * self.grid[1]

    @property
    def dim(self) -> int:
        return self.heads * self.width


TARGET = Shape("14x14, 16 regions", 16, (14, 14), 16, (0.2, 0.7))  # the shape that issue 4 sets targets for
QUICK = [
    TARGET,
    Shape("12x12, 4 regions", 16, (12, 12), 4, (0.1, 0.8)),
    Shape("24x24, 16 regions", 2, (24, 24), 16, (0.2, 0.7)),
]
FULL = [
    *QUICK,
    Shape("12x12, 16 regions", 8, (12, 12), 16, (0.1, 0.8)),
    Shape("14x14, 4 regions", 16, (14, 14), 4, (0.2, 0.7)),
    Shape("14x14, 64 regions", 4, (14, 14), 64, (0.2, 0.7)),
    Shape("14x14, 16 small", 8, (14, 14), 16, (0.1, 0.3)),
    Shape("14x14, 16 large", 8, (14, 14), 16, (0.6, 0.8)),
    Shape("24x24, 64 regions", 1, (24, 24), 64, (0.1, 0.8)),
]
SHAPES = {"target": [TARGET], "quick": QUICK, "full": FULL}
# An accelerator is not filled by these few images.
CUDA_SHAPES = {
    name: [Shape(**vars(s) | {"images": s.images * 8}) for s in shapes] for name, shapes in SHAPES.items()
}


@dataclass(frozen=True)
class Batch:
    """`lengths` (G,) int64: tokens of each region; triplet r pairs regions 2 r and 2 r + 1."""

    shape: Shape
    regions: Regions
    lengths: Tensor

    @property
    def visible(self) -> Tensor:
        """(G, S) bool: the tokens that each region's text sees."""
        return torch.cat(
            [self.regions.prefix[:, None].expand(-1, self.shape.prefix), self.regions.patch_mask()], 1
        )

    def flops(self) -> int:
        """Of the forward, inside the boxes; the backward needs 5 products for the forward's 2."""
        return 4 * self.shape.dim * int((self.lengths * self.visible.sum(1)).sum())

    def bytes(self, size: int) -> int:
        """q, k, v and the output once, `size` bytes an element; the backward moves twice as much."""
        rows = 2 * int(self.lengths.sum()) + 2 * self.shape.images * self.shape.keys
        return rows * self.shape.dim * size


def make_batch(shape: Shape, device: torch.device, seed: int = 0) -> Batch:
    """Boxes of uniformly random sides and places; every region sees the prefix."""
    generator = torch.Generator().manual_seed(seed)
    groups = shape.images * shape.regions
    size = torch.tensor([shape.grid[1], shape.grid[0]])
    low, high = shape.sides
    sides = low + (high - low) * torch.rand(groups, 2, generator=generator)
    sides = (sides * size).round().long().clamp(min=1).minimum(size)
    corner = (torch.rand(groups, 2, generator=generator) * (size - sides + 1)).long().minimum(size - sides)
    lengths = torch.randint(shape.tokens[0], shape.tokens[1] + 1, (groups,), generator=generator)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    flag = torch.ones(groups, dtype=torch.bool, device=device)
    regions = Regions(
        offsets.int().to(device), torch.arange(shape.images).repeat_interleave(shape.regions).int().to(device),
        torch.cat([corner, corner + sides], 1).int().to(device), flag, ~flag, shape.grid,
    )  # fmt: skip
    return Batch(shape, regions, lengths.to(device))
