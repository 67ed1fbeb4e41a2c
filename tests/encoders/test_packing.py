"""Index arithmetic of packed sequences, against lists; empty sequences are ordinary."""

import pytest
import torch

from relvlm.encoders.packing import gather_rows, offsets_of, pack, positions, read_offsets, unpack

LENGTHS = [3, 0, 2, 1, 0]
CU = torch.tensor([0, 3, 3, 5, 6, 6], dtype=torch.int32)


def test_offsets_are_the_running_sum():
    offsets = offsets_of(torch.tensor(LENGTHS))
    assert offsets.dtype == torch.int32 and torch.equal(offsets, CU)


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4], [2, 2, 0], [1], [3, 1, 3, 0], []])
def test_gather_takes_whole_sequences_in_any_order_and_again(order):
    rows, offsets = gather_rows(CU, torch.tensor(order, dtype=torch.long))
    expected = [row for s in order for row in range(int(CU[s]), int(CU[s + 1]))]
    assert rows.tolist() == expected
    assert offsets.diff().tolist() == [LENGTHS[s] for s in order]


def test_positions_count_from_the_start_of_each_sequence():
    assert positions(CU, 6).tolist() == [0, 1, 2, 0, 1, 0]
    assert positions(torch.tensor([0, 0, 2], dtype=torch.int32), 2).tolist() == [0, 1]


@pytest.mark.parametrize("read", [[0, 3, 5], [1, 2], [0, 1, 2, 3, 4, 5], [], [4]])
def test_read_offsets_count_the_rows_read_of_each_sequence(read):
    offsets = read_offsets(torch.tensor(read, dtype=torch.long), CU)
    owner = [sum(int(CU[s + 1]) <= row for s in range(5)) for row in read]
    assert offsets.diff().tolist() == [owner.count(s) for s in range(5)]


@pytest.mark.parametrize("extra", [(), (4,), (2, 3)])
def test_unpack_undoes_pack_and_back(extra):
    mask = torch.arange(3) < torch.tensor(LENGTHS)[:, None]
    padded = torch.randn(5, 3, *extra)
    rows, cu = pack(padded, mask.long())
    assert rows.shape[0] == 6 and torch.equal(cu, CU)
    back = unpack(rows, mask)
    assert torch.equal(back[mask], padded[mask]) and (back[~mask] == 0).all()
    assert torch.equal(pack(back, mask)[0], rows)
