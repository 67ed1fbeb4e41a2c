"""The shapes of region attention that benchmarks measure, and random batches of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from relvlm_kernels import Regions


@dataclass(frozen=True)
class Shape:
    """`sides`: of the boxes, as fractions of the image; `tokens`: fewest and most of a group's text.

    An image has `regions` groups that see a box, and `whole` that see all of it. With `mean` a region sees the mean of
    its patches instead of the prefix, as in training; `dropout` is that of attention probabilities.
    """

    name: str
    images: int
    grid: tuple[int, int]
    regions: int  # of an image
    sides: tuple[float, float]
    tokens: tuple[int, int] = (3, 7)
    heads: int = 12
    width: int = 64
    prefix: int = 1
    whole: int = 0
    mean: bool = False
    dropout: float = 0.0

    @property
    def keys(self) -> int:
        return self.prefix + self.grid[0] * self.grid[1]

    @property
    def dim(self) -> int:
        return self.heads * self.width

    @property
    def groups(self) -> int:
        """Of an image."""
        return self.regions + self.whole

    @property
    def options(self) -> str:
        """What makes the kernels slower: "plain", "mean", "dropout" or both."""
        return " + ".join(["mean"] * self.mean + ["dropout"] * (self.dropout > 0)) or "plain"


TARGET = Shape("14x14, 16 regions", 16, (14, 14), 16, (0.2, 0.7))  # the shape that targets are set for
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
# A GPU's share of the recipe's steps on 8 of them (configs/13m/rex_vlm.yaml). A text goes through the fusion encoder
# for ITM three times and for MLM once, a region's once more for its box, which is sought in the whole image.
RECIPE = [
    Shape("captions", 128, (14, 14), 0, (1, 1), (7, 21), whole=4),
    Shape("entities", 26, (14, 14), 20, (0.2, 0.8), whole=5),
    Shape("mrc", 32, (14, 14), 4, (0.2, 0.8)),
    Shape("vsg", 16, (14, 14), 0, (1, 1), (25, 73), whole=4),
]
SHAPES = {"target": [TARGET], "quick": QUICK, "full": FULL}


def for_cuda(shape: Shape) -> Shape:
    """An accelerator is not filled by so few images."""
    return replace(shape, images=shape.images * 8)


def toy(shape: Shape) -> Shape:
    """As few images and heads as a test has time for."""
    tokens = (min(shape.tokens[0], 3), min(shape.tokens[1], 7))
    return replace(shape, images=2, heads=2, width=16, regions=min(shape.regions, 16), tokens=tokens)


def as_trained(shape: Shape) -> Shape:
    """The slowest path, which training takes."""
    return replace(shape, mean=shape.regions > 0, dropout=0.1)


@dataclass(frozen=True)
class Batch:
    """`lengths` (G,) int64: tokens of each group, those of an image side by side, regions first.

    Where there are regions alone, triplet r pairs groups 2 r and 2 r + 1.
    """

    shape: Shape
    regions: Regions
    lengths: Tensor

    @property
    def visible(self) -> Tensor:
        """(G, S) bool: the tokens that each group's text sees, its mean token not counted."""
        return torch.cat([self.regions.prefix[:, None].expand(-1, self.shape.prefix), self.regions.patch_mask()], 1)

    def flops(self) -> int:
        """Of the forward, inside the boxes; the backward needs 5 products for the forward's 2."""
        return 4 * self.shape.dim * int((self.lengths * self.visible.sum(1)).sum())

    def bytes(self, size: int) -> int:
        """q, k, v and the output once, `size` bytes an element; the backward moves twice as much."""
        rows = 2 * int(self.lengths.sum()) + 2 * self.shape.images * self.shape.keys
        return rows * self.shape.dim * size


def make_batch(shape: Shape, device: torch.device, seed: int = 0) -> Batch:
    """Boxes of uniformly random sides and places; every region sees the prefix, or its mean token instead."""
    generator = torch.Generator().manual_seed(seed)
    groups = shape.images * shape.groups
    whole = (torch.arange(shape.groups) >= shape.regions).repeat(shape.images)
    lengths = torch.randint(shape.tokens[0], shape.tokens[1] + 1, (groups,), generator=generator)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    mean = ~whole & shape.mean
    image = torch.arange(shape.images).repeat_interleave(shape.groups)
    tensors = offsets.int(), image.int(), _boxes(shape, whole, generator).int(), ~mean, mean
    return Batch(shape, Regions(*(x.to(device) for x in tensors), shape.grid), lengths.to(device))


def _boxes(shape: Shape, whole: Tensor, generator: torch.Generator) -> Tensor:
    """(G, 4), the full grid where `whole`."""
    size = torch.tensor([shape.grid[1], shape.grid[0]])
    low, high = shape.sides
    sides = low + (high - low) * torch.rand(len(whole), 2, generator=generator)
    sides = (sides * size).round().long().clamp(min=1).minimum(size)
    sides = torch.where(whole[:, None], size, sides)
    corner = (torch.rand(len(whole), 2, generator=generator) * (size - sides + 1)).long()
    corner = corner.minimum(size - sides)
    return torch.cat([corner, corner + sides], 1)
