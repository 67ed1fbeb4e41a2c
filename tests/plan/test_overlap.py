"""What of a step's communication its backward pass hides, by ZeRO stage."""

from dataclasses import replace

import pytest

from relvlm.engine.distributed import DEFAULT_ZERO
from relvlm.plan.cluster import Cluster
from relvlm.plan.devices import DEVICES
from relvlm.plan.overlap import BUCKET as BUCKET_ELEMENTS
from relvlm.plan.overlap import GROUPS, SUMS, waiting
from relvlm.plan.traffic import collectives

CLUSTER = Cluster(DEVICES["h200"], 4, 8)
PARAMETERS, ELEMENT, LONG = 200_000_000, 2, 10.0
SUM = SUMS * CLUSTER.seconds("all_reduce", 8)
GATHER = CLUSTER.seconds("all_gather", ELEMENT * PARAMETERS / 32) + (GROUPS - 1) * CLUSTER.seconds("all_gather", 0)
BUCKET = CLUSTER.seconds("all_reduce", 100e6)


def of(stage: int, busy: float, chunks: int = 1) -> float:
    cluster = replace(CLUSTER, stage=stage)
    return waiting(cluster, collectives(PARAMETERS, stage, 32, ELEMENT, chunks), {}, ELEMENT, chunks, busy)


def test_a_long_backward_pass_hides_all_buckets_but_the_last():
    assert of(1, LONG) == of(2, LONG) == pytest.approx(BUCKET + GATHER + SUM)
    assert of(0, LONG) == pytest.approx(4 * BUCKET + SUM)
    scatter, ahead = CLUSTER.seconds("reduce_scatter", 100e6), CLUSTER.seconds("all_gather", 100e6 / 32)
    assert of(3, LONG) == pytest.approx(scatter + ahead + SUM)


def test_a_short_one_hides_as_much_as_it_lasts():
    assert of(1, 0.0) == pytest.approx(4 * BUCKET + GATHER + SUM)
    assert of(1, 0.0) - of(1, 1.5 * BUCKET) == pytest.approx(BUCKET)


def test_of_chunks_zero_1_reduces_in_the_last_and_zero_2_in_each():
    busy = 4.5 * BUCKET  # whose backward passes take three buckets
    assert of(1, busy, chunks=3) == pytest.approx(3 * BUCKET + GATHER + SUM)
    assert of(2, busy, chunks=3) == pytest.approx((12 - 3) * BUCKET + GATHER + SUM)


def test_features_are_gathered_and_their_gradients_scattered_unhidden():
    weights, size = collectives(PARAMETERS, 1, 32, ELEMENT), 3e6
    more = waiting(CLUSTER, weights, {"all_gather": size}, ELEMENT, 1, LONG) - of(1, LONG)
    gather, scatter = CLUSTER.seconds("all_gather", size), CLUSTER.seconds("reduce_scatter", size * 32)
    assert more == pytest.approx(gather + scatter)


def test_a_gpu_alone_waits_for_nobody():
    assert waiting(Cluster(DEVICES["h200"], 1, 1), {}, {}, 2, 1, 0.01) == 0


def test_a_bucket_is_that_of_training():
    assert DEFAULT_ZERO["reduce_bucket_size"] == BUCKET_ELEMENTS
