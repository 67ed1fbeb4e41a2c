"""Which query tokens look at which image, and at which box of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Regions:
    """G groups of packed query tokens, each looking at one image.

    offsets: (G + 1,) int32, group g owns the query rows [offsets[g], offsets[g + 1]); empty groups are fine.
    image: (G,) int32, row of k and v.
    box: (G, 4) int32 patches (x0, y0, x1, y1), half-open and not empty; grid: (rows, columns) of patches.
    prefix: (G,) bool, attend to the prefix tokens ([CLS]).
    mean: (G,) bool, attend to one more token, the mean of the box's patches (X-VLM's region [CLS] for Swin).
    """

    offsets: Tensor
    image: Tensor
    box: Tensor
    prefix: Tensor
    mean: Tensor
    grid: tuple[int, int]

    @classmethod
    def whole(cls, offsets: Tensor, image: Tensor, grid: tuple[int, int]) -> Regions:
        """Groups that see their whole image and its prefix tokens."""
        groups = image.shape[0]
        full = torch.zeros(groups, 4, dtype=torch.int32, device=image.device)
        full[:, 2].fill_(grid[1])  # filled on the device: a copy from the host would wait
        full[:, 3].fill_(grid[0])
        flag = torch.ones(groups, dtype=torch.bool, device=image.device)
        return cls(offsets, image, full, flag, ~flag, grid)

    @classmethod
    def from_mask(cls, offsets: Tensor, image: Tensor, mask: Tensor, grid: tuple[int, int]) -> Regions:
        """Groups that see what a (G, P + N) bool mask shows: a box of patches, the prefix tokens all or none.

        Raises ValueError where a row's patches are not one full rectangle, or the mask has no room for the grid.
        """
        count = grid[0] * grid[1]
        if mask.dim() != 2 or mask.shape[0] != len(image) or not 0 < count <= mask.shape[1]:
            wanted = f"(G, P + N) with G = {len(image)} and N = {count}"
            raise ValueError(f"Regions.from_mask: mask {tuple(mask.shape)}: expected {wanted}")
        prefix, patches = mask.bool().split([mask.shape[1] - count, count], dim=1)
        inside = patches.view(-1, *grid)
        (y0, y1), (x0, x1) = (_extent(inside.any(3 - axis)) for axis in (1, 2))
        regions = cls(
            offsets, image, torch.stack([x0, y0, x1, y1], 1).to(torch.int32), prefix.all(1),
            torch.zeros_like(image, dtype=torch.bool), grid,
        )  # fmt: skip
        if not torch.equal(regions.patch_mask(), patches) or (prefix != prefix[:, :1]).any():
            raise ValueError("image mask: each row must show one full box of patches, and all or no prefix")
        return regions

    def pick(self, index: Tensor, offsets: Tensor) -> Regions:
        """Regions of the groups `index`, with the query offsets given."""
        return replace(
            self,
            offsets=offsets,
            image=self.image[index],
            box=self.box[index],
            prefix=self.prefix[index],
            mean=self.mean[index],
        )

    def map(self, function: Callable[[Tensor], Tensor]) -> Regions:
        """The same regions with `function` applied to every tensor, e.g. to move them to a device."""
        offsets, image, box = function(self.offsets), function(self.image), function(self.box)
        return Regions(offsets, image, box, function(self.prefix), function(self.mean), self.grid)

    def patch_mask(self) -> Tensor:
        """(G, N) bool: the patches inside each group's box, row-major."""
        return box_mask(self.box, self.grid)


def box_mask(box_G4: Tensor, grid: tuple[int, int]) -> Tensor:
    """(G, N) bool mask of half-open patch boxes (x0, y0, x1, y1), row-major."""
    rows = torch.arange(grid[0], device=box_G4.device)
    columns = torch.arange(grid[1], device=box_G4.device)
    x0, y0, x1, y1 = box_G4.unsqueeze(-1).unbind(1)
    inside_rows = (rows >= y0) & (rows < y1)
    inside_columns = (columns >= x0) & (columns < x1)
    return (inside_rows[:, :, None] & inside_columns[:, None, :]).flatten(1)


def _extent(present: Tensor) -> tuple[Tensor, Tensor]:
    """First and one past the last set place of each row of a (G, n) bool tensor."""
    first = present.int().argmax(1)
    return first, present.shape[1] - present.flip(1).int().argmax(1)
