"""Seconds of a collective: bytes over the links that there are, and NCCL's latencies."""

from dataclasses import replace

import pytest

from relvlm.plan.cluster import REACHED, Cluster
from relvlm.plan.devices import DEVICES, Device

DEVICE = Device(flops=1e12, memory=1e9, within_node=9e9, between_nodes=1e9, fp32=1e12)
H200 = Cluster(DEVICES["h200"], 1, 8)


def test_between_nodes_all_adapters_carry_together_up_to_what_a_link_within_does():
    assert Cluster(DEVICE, 1, 8).bandwidth == pytest.approx(REACHED * 9e9)
    assert Cluster(DEVICE, 2, 8).bandwidth == pytest.approx(REACHED * 8e9)
    assert Cluster(DEVICE, 2, 16).bandwidth == pytest.approx(REACHED * 9e9)
    assert Cluster(DEVICE, 2, 8, rails=1).bandwidth == pytest.approx(REACHED * 1e9)
    assert (Cluster(DEVICE, 3, 2).gpus, Cluster(DEVICE, 3, 2).stage, Cluster(DEVICE, 3, 2).mfu) == (6, 1, 0.4)


def test_large_messages_take_the_time_of_their_bytes():
    cluster, size = replace(H200, nodes=4), 64e9
    assert cluster.seconds("all_reduce", size) == pytest.approx(2 * 31 / 32 * size / (REACHED * 400e9), rel=0.01)
    assert cluster.seconds("reduce_scatter", size) == pytest.approx(31 / 32 * size / (REACHED * 400e9), rel=0.01)
    assert cluster.seconds("all_gather", size) == pytest.approx(31 * size / (REACHED * 400e9), rel=0.01)


def test_small_messages_take_a_call_and_its_hops():
    """NCCL's ring of protocol LL: 3.6 us, .85 a hop within a node, 2.7 one between; its tree: 4.4, .94, 5."""
    assert H200.seconds("all_gather", 0) == pytest.approx((3.6 + 7 * 0.85) * 1e-6)
    many = replace(H200, nodes=64)
    assert many.seconds("all_gather", 0) == pytest.approx((3.6 + 448 * 0.85 + 63 * 2.7) * 1e-6)
    assert many.seconds("all_reduce", 0) == pytest.approx((4.4 + 14 * 0.94 + 12 * 5.0) * 1e-6)


def test_a_gpu_alone_waits_for_nobody():
    assert Cluster(DEVICE, 1, 1).seconds("all_reduce", 1e9) == 0


def test_four_nodes_are_no_slower_at_the_13m_recipes_gradients_than_their_links_are():
    """One adapter stood for the eight of a node once: a step of 4 nodes took longer than one of a single node."""
    one, four = (replace(H200, nodes=nodes).seconds("all_reduce", 436e6) for nodes in (1, 4))
    assert one < four < 1.5 * one
