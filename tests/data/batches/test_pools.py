"""Pools of images whose pairs are each other's negatives: how large, on which ranks, drawn by which numbers."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from relvlm.config.schema import NegativePools
from relvlm.data.batches.pools import Dealing, ImagePools, check_ranks, uniform
from relvlm.errors import UserError


@pytest.mark.parametrize(
    ("images", "block", "pool", "edges"),
    [
        (8, 1, 2, [0, 2, 4, 6, 8]),
        (8, 1, 8, [0, 8]),
        (8, 1, 9, [0, 8]),  # the whole batch where it is smaller
        (8, 1, 7, [0, 4, 8]),  # as few as may be, of nearly equal sizes
        (10, 1, 4, [0, 3, 6, 10]),
        (12, 2, 5, [0, 4, 8, 12]),  # whole blocks, 5 images at most
        (12, 4, 4, [0, 4, 8, 12]),
        (6, 2, None, [0, 2, 4, 6]),  # without negatives, every block by itself
    ],
)
def test_pools_are_runs_of_whole_blocks(images, block, pool, edges):
    assert Dealing("vsg", images, block, pool).edges == edges


def test_pools_hold_as_many_images_as_asked_for_at_most_and_differ_by_a_block():
    for block in (1, 2, 3):
        for images in range(block, 60, block):
            for pool in range(block, 20):
                sizes = {b - a for a, b in pairwise(Dealing("vsg", images, block, pool).edges)}
                assert max(sizes) <= pool and max(sizes) - min(sizes) <= block and not any(s % block for s in sizes)


@pytest.mark.parametrize(
    ("dealing", "fitting"),
    [
        (Dealing("captions", 64, 1, 16), [1, 2, 4]),
        (Dealing("captions", 64, 1, 15), [1]),  # five pools of 12 and 13 images
        (Dealing("captions", 60, 1, 12), [1, 5]),
        (Dealing("vsg", 24, 2, 4), [1, 2, 3, 6]),
        (Dealing("mrc", 24, 2, None), [1, 2, 3, 4, 6, 12]),
    ],
)
def test_ranks_that_fit_are_those_that_are_said_to(dealing, fitting):
    """To each of them goes the same number of images, in whole pools."""
    for ranks in range(1, 70):
        faults = list(dealing.faults(ranks, 1))
        share = dealing.images / ranks
        assert (not faults) == (ranks in fitting) == all(share * r in dealing.edges for r in range(ranks))
        if faults:
            numbers = ", ".join(map(str, fitting))
            assert f"cannot be dealt to {ranks} ranks (numbers of ranks that fit: {numbers}; or" in faults[0]


def test_what_does_not_fit_is_said_with_what_would():
    pools = Dealing("captions", 64, 1, 16)
    assert list(pools.faults(8, 1)) == [
        "data.negative_pool.captions: 64 images in pools of at most 16 cannot be dealt to 8 ranks "
        "(numbers of ranks that fit: 1, 2, 4; or set it to 8)"
    ]
    assert not list(pools._replace(pool=8).faults(8, 1))
    (fault,) = pools.faults(5, 1)
    assert fault.endswith("(numbers of ranks that fit: 1, 2, 4; or take another data.batch.captions)")
    (fault,) = Dealing("mrc", 12, 2, None).faults(4, 1)
    assert fault == (
        "data.batch.mrc: 12 images in blocks of 2 cannot be dealt to 4 ranks "
        "(numbers of ranks that fit: 1, 2, 3, 6; or take another data.batch.mrc)"
    )
    (fault,) = Dealing("mrc", 13, 2, None).faults(1, 1)
    assert fault.startswith("data.batch.mrc: 13 images are no multiple of the 2 that data.graphs[].block")


def test_chunks_hold_whole_pools_or_blocks():
    pools, blocks = Dealing("captions", 64, 1, 16), Dealing("mrc", 12, 2, None)
    assert not [*pools.faults(2, 2), *blocks.faults(2, 3)]
    assert [*pools.faults(2, 3), *blocks.faults(2, 4)] == [
        "accumulate: 3 chunks are more than a rank has pools of one captions batch "
        "(take at most 2, or a smaller data.negative_pool.captions)",
        "accumulate: 4 chunks are more than a rank has blocks of one mrc batch "
        "(take at most 3, or a larger data.batch.mrc)",
    ]


def test_every_kind_that_does_not_fit_is_named(config):
    check_ranks(config, 2)
    with pytest.raises(UserError) as refused:
        check_ranks(replace(config, negative_pool=NegativePools(captions=8, entities=4, vsg=2)), 2)
    captions, entities = str(refused.value).splitlines()
    assert captions.startswith("data.negative_pool.captions:") and entities.startswith("data.negative_pool.entities:")


def test_numbers_are_uniform():
    """A thousand of each kind of draw in ten bins: chi-squared within what chance gives in 999 of 1,000 cases."""
    numbers = uniform("a step", 1000)
    assert numbers.shape == (1000, 2) and numbers.dtype == np.float32
    assert numbers.min() >= 0 and numbers.max() < 1
    for column in numbers.T:
        found = np.histogram(column, 10, (0, 1))[0]
        assert ((found - 100) ** 2 / 100).sum() < 27.9
    assert abs(np.corrcoef(numbers.T)[0, 1]) < 0.1


def test_the_same_key_draws_the_same_in_every_version():
    """A run goes on with the numbers that it began with."""
    assert uniform("0/17/captions/3", 2).tolist() == [
        [0.25975513458251953, 0.4220564365386963],
        [0.2039879560470581, 0.21607232093811035],
    ]


def test_a_pool_has_its_numbers_by_section_and_place():
    groups = [("captions", 0), ("captions", 1), ("captions", 2), ("vsg", 0), ("vsg", 0), ("vsg", 2)]
    drawn = ImagePools([7, 7, 8], "3/5").draws(groups)
    expected = [
        uniform(f"3/5/{name}", n) for name, n in [("captions/7", 2), ("captions/8", 1), ("vsg/7", 2), ("vsg/8", 1)]
    ]
    assert np.array_equal(drawn, np.concatenate(expected))
