"""The plan of Triton's attention: the rows of an image side by side."""

import pytest
import torch
from support.on_device import DEVICE, started, triton_marks

pytest.importorskip("triton", reason="triton is not installed")
from relvlm_kernels.triton import plan

pytestmark = triton_marks()


def groups(count=300, images=5):
    """More than a block holds, in no order, some without rows: lengths, image, box, flags."""
    generator = torch.Generator().manual_seed(0)
    lengths, image = (torch.randint(0, n, (count,), generator=generator) for n in (7, images))
    box = torch.randint(0, 60000, (count, 4), generator=generator)
    return lengths, image, box, torch.randint(0, 2, (2, count), generator=generator)


def planned(lengths, image, box, flags, before=0, after=0, **options):
    offsets = torch.tensor([0, *lengths.cumsum(0)]) + before
    index = (x.to(DEVICE) for x in (offsets, image, box, *flags))
    return plan.by_image(*index, images=6, rows=int(offsets[-1]) + after, **options)


def words(lengths, image, box, flags, before=0):
    """The table of the rows of groups, in the order of their images."""
    owner = torch.arange(len(lengths)).repeat_interleave(lengths)
    order = image[owner].argsort(stable=True)
    x0, y0, x1, y1 = box[owner[order]].unbind(1)
    flag = (flags[0] + 2 * flags[1])[owner[order]]
    return torch.stack([order + before, y0 | y1 << 16, x0 | x1 << 16, flag]).int(), image[owner][order]


def test_puts_the_rows_of_an_image_side_by_side(poisoned):
    made = groups()
    found, (wanted, images) = planned(*made), words(*made)
    assert torch.equal(found.table.cpu(), wanted)
    assert found.starts.tolist() == torch.searchsorted(images, torch.arange(7)).tolist()
    assert found.with_mean.tolist() == [1, 1, 1, 1, 1, 0]


def test_rows_in_no_group_go_to_the_last_image_and_see_nothing(poisoned):
    made = groups()
    found, (wanted, _) = planned(*made, before=3, after=200), words(*made, before=3)
    inside = wanted.shape[1]
    assert torch.equal(found.table[:, :inside].cpu(), wanted)
    others = [*range(3), *range(3 + inside, 3 + inside + 200)]
    assert found.table[0, inside:].tolist() == others and not found.table[1:, inside:].any()
    assert found.starts.tolist()[5:] == [inside, inside + 203]


@pytest.mark.parametrize("partial", [False, True])
def test_groups_of_images_that_are_not_there_see_nothing_or_are_left_out(poisoned, partial):
    lengths, image, box, flags = groups()
    image[::7], image[1::7] = 6, -1
    there = (image >= 0) & (image < 6)
    found = planned(lengths, image, box, flags, partial=partial)
    rows = int(lengths[there].sum())
    assert found.starts.tolist()[5:] == [rows, rows if partial else int(lengths.sum())]
    if not partial:
        owner = torch.arange(len(lengths)).repeat_interleave(lengths)
        absent = (~there[owner]).nonzero()[:, 0]
        assert sorted(found.table[0, rows:].tolist()) == absent.tolist() and not found.table[1:, rows:].any()


def test_one_program_an_image_with_blocks_as_measured(monkeypatch):
    """Another size is to be measured again."""
    found = started(monkeypatch)
    planned(*groups())
    assert found == [("plan", 6, {"BLOCK_G": 128, "BLOCK_R": 4, "num_warps": 4, "num_stages": 1})]
