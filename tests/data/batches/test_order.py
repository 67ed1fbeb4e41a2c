import numpy as np
import pytest

from relvlm.data.batches.order import KEPT, SHUFFLE_SHARDS, EpochOrder

UNEQUAL = (*(7 + 3 * (shard % 5) for shard in range(3 * SHUFFLE_SHARDS + 5)), 0, 1)


def whole(sizes: tuple[int, ...], block: int = 1, name: str = "3/captions/0/0") -> np.ndarray:
    return EpochOrder(sizes, block, name).records(np.arange(sum(sizes)))


@pytest.fixture
def computed(monkeypatch) -> list[tuple[str, int]]:
    """The (name, number) of every window that is computed, as they are."""
    found, compute = [], EpochOrder._mixed

    def counting(order: EpochOrder, number: int) -> np.ndarray:
        found.append((order.name, number))
        return compute(order, number)

    monkeypatch.setattr(EpochOrder, "_mixed", counting)
    return found


@pytest.mark.parametrize("sizes", [(1,), (0, 5), (10,) * SHUFFLE_SHARDS, (10,) * (SHUFFLE_SHARDS + 1), UNEQUAL])
def test_an_epoch_holds_every_record_once(sizes):
    assert sorted(whole(sizes).tolist()) == list(range(sum(sizes)))


def test_an_epoch_is_the_same_however_it_is_asked_for():
    order, epoch = EpochOrder(UNEQUAL, 1, "a"), whole(UNEQUAL, name="a")
    for first in (600, 3, 500):  # across windows, back, and again
        assert np.array_equal(order.records(np.arange(first, first + 40)), epoch[first : first + 40])
    assert np.array_equal(EpochOrder(UNEQUAL, 1, "a").records(np.array([2, 90, 650])), epoch[[2, 90, 650]])


def test_another_name_is_another_order_of_shards_and_of_records():
    sizes = (100,) * (2 * SHUFFLE_SHARDS)
    one, other = whole(sizes, name="3/a/0"), whole(sizes, name="3/a/1")
    half = len(one) // 2
    assert set((one[:half] // 100).tolist()) != set((other[:half] // 100).tolist())
    few = (100,) * SHUFFLE_SHARDS  # one window
    assert not np.array_equal(whole(few, name="3/a/0"), whole(few, name="3/a/1"))


def test_few_shards_are_read_at_a_time_and_well_mixed():
    sizes, window = (10,) * (5 * SHUFFLE_SHARDS), 10 * SHUFFLE_SHARDS
    order = whole(sizes)
    for start in range(0, len(order), window):
        part = order[start : start + window]
        assert len(set((part // 10).tolist())) == SHUFFLE_SHARDS
        assert len(set((part[:30] // 10).tolist())) > 8
    assert set((order[:window] // 10).tolist()) != set(range(SHUFFLE_SHARDS))


@pytest.mark.parametrize("sizes", [(6, 4), (5, 7, 3, 3), (1,) * 60])
def test_blocks_stay_together_and_within_their_epoch(sizes):
    """Also those that lie across the edge of two shards, or of two windows of them."""
    blocks = whole(sizes, block=2).reshape(-1, 2)
    assert np.array_equal(blocks[:, 0] + 1, blocks[:, 1]) and not np.any(blocks[:, 0] % 2)
    assert sorted(blocks.reshape(-1).tolist()) == list(range(sum(sizes)))


def test_no_window_is_computed_that_nobody_asks_for(computed):
    sizes = (100,) * (700 * SHUFFLE_SHARDS)
    order = EpochOrder(sizes, 1, "a")
    assert not computed
    window = 100 * SHUFFLE_SHARDS
    order.records(np.arange(630 * window - 5, 630 * window))  # a start at nine tenths
    assert computed == [("a", 629)]
    order.records(np.arange(630 * window - 5, 630 * window + 5))
    assert computed == [("a", 629), ("a", 630)]


def test_windows_are_kept_while_steps_lie_across_their_edge_and_no_longer(computed):
    window = 10 * SHUFFLE_SHARDS
    order = EpochOrder((10,) * (4 * SHUFFLE_SHARDS), 1, "a")
    for first in range(0, 4 * window, 7):
        order.records(np.arange(first, min(first + 7, 4 * window)))
    assert [number for _, number in computed] == [0, 1, 2, 3]
    assert order._window.cache_info().currsize == KEPT


def test_the_same_name_orders_the_same_in_every_version():
    """A run goes on with the order that it began with."""
    assert whole((6, 4), 2, "3/vsg/0/1").tolist() == [2, 3, 0, 1, 8, 9, 4, 5, 6, 7]
    assert whole((2,) * 20, 1, "3/a/0/1")[[0, 31, 32, 39]].tolist() == [33, 23, 27, 26]
