"""Packed rows to padded places and back: rows side by side, in order, and zeros where a row has no place."""

import pytest
import torch

from relvlm_kernels.slots import by_image, by_sequence, owner, present

ROWS = torch.arange(1.0, 8)[:, None] * torch.tensor([1.0, 10.0])  # (T, D)


def padded(slots):
    return slots.pad(ROWS)[..., 0].tolist()


@pytest.mark.parametrize(
    ("offsets", "groups", "owned"),
    [
        ([0, 3, 3, 7], [0, 0, 0, 2, 2, 2, 2], [True] * 7),
        ([2, 3, 6], [0, 0, 0, 1, 1, 1, 1], [False, False, True, True, True, True, False]),
        ([4], [0] * 7, [False] * 7),
    ],
)
def test_the_owner_of_a_row(offsets, groups, owned):
    found, there = owner(torch.tensor(offsets).int(), 7)
    assert found.tolist() == groups and there.tolist() == owned


def test_images_that_are_present():
    assert present(torch.tensor([-1, 0, 2, 3]), 3).tolist() == [False, True, True, False]


def test_sequences_lie_row_by_row():
    slots = by_sequence(torch.tensor([0, 2, 2, 7]), 7)
    assert padded(slots) == [[1, 2, 0, 0, 0], [0] * 5, [3, 4, 5, 6, 7]]
    assert slots.packed_rows().tolist() == [[0, 1, 0, 0, 0], [0] * 5, [2, 3, 4, 5, 6]]


def test_rows_of_an_image_keep_their_order():
    slots = by_image(torch.tensor([2, 0, 2, 0, 0, 2, 2]), torch.ones(7).bool(), 3)
    assert padded(slots) == [[2, 4, 5, 0], [0] * 4, [1, 3, 6, 7]]


@pytest.mark.parametrize("make", [
    lambda: by_sequence(torch.tensor([1, 3, 5]), 7),
    lambda: by_image(torch.tensor([0, 0, 0, 1, 1, 2, -1]), torch.tensor([0, 1, 1, 1, 1, 1, 1]).bool(), 2),
])  # fmt: skip
def test_rows_without_a_place_come_back_as_what_is_said(make):
    slots = make()
    assert padded(slots) == [[2, 3], [4, 5]]
    heads = slots.heads(ROWS[:, None])
    assert heads.shape == (2, 1, 2, 2)
    back = slots.pack(heads, other=-7.0)
    inside = torch.tensor([0, 1, 1, 1, 1, 0, 0]).bool()
    assert torch.equal(back[inside, 0], ROWS[inside]) and (back[~inside] == -7).all()
    assert not slots.pack(heads)[~inside].any()


@pytest.mark.parametrize("x", [torch.randn(7, 3), torch.randn(7, 2, 5)])
def test_the_way_there_and_back_is_the_identity(x):
    image = torch.tensor([1, 0, 1, 1, 0, 0, 1])
    for slots in (by_sequence(torch.tensor([0, 2, 7]), 7), by_image(image, torch.ones(7).bool(), 2)):
        assert torch.equal(slots.pack_rows(slots.pad(x).flatten(0, 1)), x)


def test_nothing_has_no_places():
    none = torch.zeros(0, dtype=torch.int64)
    for slots in (by_sequence(torch.tensor([0]), 0), by_sequence(torch.tensor([3]), 7)):
        assert slots.shape == (0, 0)
    assert by_image(none, none.bool(), 0).shape == (0, 0) and by_image(none, none.bool(), 2).shape == (2, 0)
