"""What a chunk's means weigh in the step's, over chunks and ranks."""

from dataclasses import replace

import pytest
import torch
from support.views import chunks_of, made_views
from torch import Tensor

from relvlm.pretraining.means import ONE_RANK, Ranks, shares_of, weighed


def two_ranks(other: Tensor) -> Ranks:
    """As one of two ranks, the other of which counts so much of each objective."""
    return Ranks(2, ONE_RANK.gather_rows, lambda counts: counts + other)


def floats(shares: list[dict[str, Tensor | float]]) -> list[dict[str, float]]:
    return [{name: float(share) for name, share in of_chunk.items()} for of_chunk in shares]


def test_each_objective_is_shared_by_what_it_counts():
    chunks = chunks_of("entities", 2)
    first, second = floats(shares_of(chunks, "masked", ONE_RANK))
    for name, counts in {
        "mlm": [len(chunk.mlm_row) for chunk in chunks],
        "bbox": [len(chunk.region) for chunk in chunks],
        "itm": [3 * chunk.groups for chunk in chunks],
    }.items():
        shares = first[f"entities/{name}"], second[f"entities/{name}"]
        assert shares == pytest.approx([n / sum(counts) for n in counts])


def test_of_nothing_each_chunk_has_nothing_and_all_of_a_single_thing():
    """Chunks of entities of which one box is left in all, and then none."""
    first, second = chunks_of("entities", 2)
    without = replace(second, region=second.region[:0])
    one_box = [replace(first, region=first.region[:1]), without]
    assert [of["entities/bbox"] for of in floats(shares_of(one_box, "masked", ONE_RANK))] == [1.0, 0.0]
    assert [of["entities/bbox"] for of in floats(shares_of([without] * 2, "masked", ONE_RANK))] == [0.0, 0.0]


def test_a_pair_without_a_negative_has_no_share():
    """Of three images in two chunks, the first is alone in its own: one pair is counted there, and six."""
    chunks = chunks_of("captions", 2, made_views("captions", 3))
    shares = [of["captions/itm"] for of in floats(shares_of(chunks, "masked", ONE_RANK))]
    assert shares == pytest.approx([1 / 7, 6 / 7])


def test_a_whole_step_on_one_rank_computes_no_share():
    (whole,) = chunks_of("joint", 1)
    (shares,) = shares_of([whole], "masked", ONE_RANK)
    assert set(shares.values()) == {1.0} and not any(isinstance(share, Tensor) for share in shares.values())
    assert {"captions/itm", "entities/bbox", "vsg/mlm", "mrc/mrc"} < shares.keys()


def test_ranks_count_by_what_they_hold():
    """The other rank has three times as many masked words and no box: means over the two are means over all."""
    (own,) = chunks_of("entities", 1)
    masked, boxes, pairs = len(own.mlm_row), len(own.region), 3 * own.groups
    names = ["itm", "mlm", "bbox"]
    other = torch.tensor([{"itm": pairs, "mlm": 3 * masked, "bbox": 0}[name] for name in names])
    (shares,) = floats(shares_of([own], "masked", two_ranks(other)))
    assert boxes and shares == {"entities/itm": 1.0, "entities/mlm": 0.5, "entities/bbox": 2.0}


def test_shares_of_ranks_and_chunks_together_add_up_to_the_number_of_ranks():
    chunks = chunks_of("mrc", 2)
    counts = torch.tensor([len(chunk.relation) for chunk in chunks])
    shares = floats(shares_of(chunks, "masked", two_ranks(torch.tensor([5]))))
    found = [of["mrc/mrc"] for of in shares]
    assert found == pytest.approx((2 * counts / (counts.sum() + 5)).tolist())


def test_a_mean_keeps_its_precision():
    for dtype in (torch.float32, torch.float64):
        mean = torch.tensor(3.0, dtype=dtype)
        for share in (0.5, torch.tensor(0.5, dtype=torch.float64)):
            assert weighed(mean, share).dtype == dtype and weighed(mean, share) == 1.5
