from dataclasses import replace
from itertools import islice

import numpy as np
import pytest

from relvlm.data.batches.sampler import (
    SHUFFLE_SHARDS,
    BatchPlan,
    Stream,
    _uniform,
    draw_streams,
    epoch_order,
)
from relvlm.errors import UserError

CAPTIONS = Stream("captions", "captions/0", (30, 30, 17), images=12, probability=2.0, pool=3)
GRAPHS = Stream("vsg", "vsg/0", (40, 10), images=8, probability=1.0, block=2, pool=2)
STREAMS = (CAPTIONS, GRAPHS)


def steps(count, **kwargs):
    return list(islice(BatchPlan(STREAMS, seed=3, **kwargs), count))


def as_tuples(plans):
    return [(p.step, p.stream, p.epoch.tolist(), p.index.tolist()) for p in plans]


def test_plan_is_a_function_of_seed_and_step():
    run = as_tuples(steps(1500))  # longer than a chunk of draws
    assert run == as_tuples(steps(1500))
    for start in (1, 700, 1100):
        assert as_tuples(steps(20, start_step=start)) == run[start : start + 20]
    assert as_tuples([next(iter(BatchPlan(STREAMS, 3, 99)))]) == run[99:100]


def test_another_seed_gives_another_plan():
    other = list(islice(BatchPlan(STREAMS, seed=4), 50))
    assert [p.stream for p in other] != [p.stream for p in steps(50)]
    assert not np.array_equal(epoch_order(CAPTIONS, 3, 0), epoch_order(CAPTIONS, 4, 0))


def test_every_epoch_holds_every_record_once():
    seen = {}
    for plan in steps(100):
        for epoch, index in zip(plan.epoch, plan.index, strict=True):
            seen.setdefault((plan.stream, int(epoch)), []).append(int(index))
    for number, stream in enumerate(STREAMS):
        complete = [v for (s, _), v in seen.items() if s == number][:-1]
        assert len(complete) >= 4
        assert all(sorted(indices) == list(range(stream.size)) for indices in complete)
        assert complete[0] != complete[1]


def test_order_of_an_epoch_depends_on_the_stream():
    assert not np.array_equal(epoch_order(GRAPHS, 0, 0), epoch_order(replace(GRAPHS, name="mrc/0"), 0, 0))


@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_split_the_same_global_batch(world_size):
    whole = steps(60)
    parts = [steps(60, rank=rank, world_size=world_size) for rank in range(world_size)]
    for step, plan in enumerate(whole):
        shares = [p[step] for p in parts]
        assert {s.stream for s in shares} == {plan.stream}
        assert len({len(s.index) for s in shares}) == 1
        for name in ("epoch", "index", "pool"):  # one rank after another
            assert np.array_equal(np.concatenate([getattr(s, name) for s in shares]), getattr(plan, name))


def test_siblings_stay_together_on_one_rank():
    for plan in steps(200, rank=1, world_size=2):
        if STREAMS[plan.stream] is GRAPHS:
            first, second = plan.index.reshape(-1, 2).T
            assert np.array_equal(first + 1, second)
            assert not np.any(first % 2)


def test_shuffle_reads_few_shards_at_a_time():
    shards, size = 5 * SHUFFLE_SHARDS, 10
    stream = Stream("captions", "c", (size,) * shards, images=1, probability=1.0)
    order = epoch_order(stream, 0, 0)
    window = SHUFFLE_SHARDS * size
    for start in range(0, len(order), window):
        part = order[start : start + window]
        assert len(set((part // size).tolist())) == SHUFFLE_SHARDS
        assert not np.array_equal(part, np.sort(part))
    assert set((order[:window] // size).tolist()) != set(range(SHUFFLE_SHARDS))


def test_streams_are_drawn_by_probability():
    drawn = np.bincount(draw_streams([2.0, 0.0, 1.5, 1.0], 0, 0, 90_000), minlength=4) / 90_000
    assert drawn == pytest.approx([2 / 4.5, 0, 1.5 / 4.5, 1 / 4.5], abs=0.01)
    assert np.array_equal(draw_streams([1.0, 1.0], 5, 0, 100)[40:], draw_streams([1.0, 1.0], 5, 40, 100))


def test_batch_larger_than_the_dataset_spans_epochs():
    stream = Stream("captions", "c", (5,), images=12, probability=1.0)
    plan = next(iter(BatchPlan([stream], 0)))
    assert plan.epoch.tolist() == [0] * 5 + [1] * 5 + [2] * 2
    assert sorted(plan.index[5:10].tolist()) == [0, 1, 2, 3, 4]


def test_batch_that_ranks_cannot_share_is_refused():
    with pytest.raises(UserError, match=r"data\.negative_pool\.vsg: 8 images .* 8 ranks \(.* 1, 2, 4;"):
        BatchPlan([GRAPHS], 0, world_size=8)
    with pytest.raises(UserError, match="50 samples are no multiple of 4"):
        BatchPlan([replace(GRAPHS, block=4)], 0)


def test_blocks_of_the_shards_read_together_are_mixed():
    stream = Stream("captions", "c", (50,) * (2 * SHUFFLE_SHARDS), images=1, probability=1.0)
    order = epoch_order(stream, 0, 0)
    assert len(set((order[:40] // 50).tolist())) > 1


def test_the_same_seed_plans_the_same_in_every_version():
    """A run goes on with the plan that it began with."""
    assert draw_streams([2.0, 0.0, 1.5, 1.0], 7, 1000, 1020).tolist() == [
        3,
        2,
        0,
        2,
        2,
        0,
        2,
        0,
        2,
        2,
        3,
        0,
        2,
        0,
        0,
        0,
        0,
        2,
        2,
        2,
    ]
    assert epoch_order(Stream("vsg", "vsg/0", (6, 4), images=2, probability=1.0, block=2), 3, 1).tolist() == [
        6,
        7,
        8,
        9,
        0,
        1,
        4,
        5,
        2,
        3,
    ]
    hashes = _uniform(7, np.arange(3, dtype=np.uint64))
    assert hashes.tolist() == [0.5891175350121116, 0.9330464997838593, 0.2809874843460586]
