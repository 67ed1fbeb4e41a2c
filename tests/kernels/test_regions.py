"""`Regions`: whole images, boxes of masks and back, picking."""

import pytest
import torch

from relvlm_kernels import Regions
from relvlm_kernels.regions import box_mask

GRID = (2, 3)
CU = torch.tensor([0, 2, 3], dtype=torch.int32)
IMAGE = torch.tensor([1, 0], dtype=torch.int32)


def mask_of(prefix: list[bool], boxes: list[tuple[int, int, int, int]]) -> torch.Tensor:
    patches = torch.zeros(len(boxes), *GRID, dtype=torch.bool)
    for g, (x0, y0, x1, y1) in enumerate(boxes):
        patches[g, y0:y1, x0:x1] = True
    return torch.cat([torch.tensor(prefix)[:, None], patches.flatten(1)], dim=1)


def test_whole_shows_every_patch_and_the_prefix():
    regions = Regions.whole(CU, IMAGE, GRID)
    assert regions.box.tolist() == [[0, 0, 3, 2]] * 2
    assert regions.prefix.all() and not regions.mean.any() and regions.patch_mask().all()


def test_every_box_survives_the_way_through_a_mask():
    boxes = [(x0, y0, x1, y1) for x0 in range(3) for x1 in range(x0 + 1, 4) for y0, y1 in [(0, 1), (0, 2), (1, 2)]]
    prefix = [bool(i % 2) for i in range(len(boxes))]
    image = torch.zeros(len(boxes), dtype=torch.int32)
    regions = Regions.from_mask(torch.arange(len(boxes) + 1).int(), image, mask_of(prefix, boxes), GRID)
    assert [tuple(b) for b in regions.box.tolist()] == boxes
    assert regions.prefix.tolist() == prefix and not regions.mean.any()
    assert regions.box.dtype == torch.int32


def test_a_mask_may_be_of_numbers_and_without_prefix():
    regions = Regions.from_mask(CU, IMAGE, mask_of([True] * 2, [(0, 0, 1, 1), (1, 0, 3, 2)])[:, 1:].float(), GRID)
    assert regions.box.tolist() == [[0, 0, 1, 1], [1, 0, 3, 2]]


@pytest.mark.parametrize("holes", [[0, 5], [0, 2], [1, 3, 4], []], ids=["corners", "gap", "bent", "nothing"])
def test_a_mask_that_is_no_box_is_refused(holes):
    mask = torch.zeros(2, 7, dtype=torch.bool)
    mask[0] = True
    mask[1, [1 + h for h in holes]] = True
    with pytest.raises(ValueError, match="one full box of patches"):
        Regions.from_mask(CU, IMAGE, mask, GRID)


def test_half_a_prefix_is_refused():
    mask = torch.ones(2, 8, dtype=torch.bool)  # two prefix tokens
    mask[1, 0] = False
    with pytest.raises(ValueError, match="all or no prefix"):
        Regions.from_mask(CU, IMAGE, mask, GRID)


def test_pick_takes_regions_in_any_order_and_again():
    regions = Regions.from_mask(CU, IMAGE, mask_of([True, False], [(0, 0, 1, 1), (1, 0, 3, 2)]), GRID)
    offsets = torch.tensor([0, 1, 5, 5], dtype=torch.int32)
    picked = regions.pick(torch.tensor([1, 0, 1]), offsets)
    assert picked.image.tolist() == [0, 1, 0] and picked.prefix.tolist() == [False, True, False]
    assert picked.box[:, 0].tolist() == [1, 0, 1] and picked.offsets is offsets and picked.grid == GRID


def test_box_mask_is_row_major_and_half_open():
    assert box_mask(torch.tensor([[1, 0, 3, 1], [0, 1, 1, 2]]), GRID).int().tolist() == [
        [0, 1, 1, 0, 0, 0],
        [0, 0, 0, 1, 0, 0],
    ]


@pytest.mark.parametrize("shape", [(2, 5), (3, 7), (7,)])
def test_a_mask_of_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match=r"mask .*: expected \(G, P \+ N\) with G = 2 and N = 6"):
        Regions.from_mask(CU, IMAGE, torch.ones(shape), GRID)
