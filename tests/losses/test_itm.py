"""Hard negatives: drawn by similarity, never a false one, whatever the similarities look like; the ITM loss."""

import pytest
import torch
import torch.nn.functional as F

from relvlm.losses.itm import IGNORED, ITMHead, hard_negatives, itm_loss, negative_weights

NAN, INF = float("nan"), float("inf")


def test_an_excluded_column_is_never_drawn():
    torch.manual_seed(0)
    excluded = torch.rand(40, 6) < 0.6
    excluded[:, 0] |= excluded.all(1)
    excluded[excluded.all(1), 3] = False
    for scale in (0.1, 10.0, 1000.0):
        for _ in range(30):
            similarity = scale * torch.randn(40, 6)
            similarity[excluded] += 50 * scale  # the most alluring ones
            drawn, exists = hard_negatives(similarity, excluded)
            assert exists.all() and not excluded[torch.arange(40), drawn].any()


def test_a_row_with_nothing_to_draw_from_is_flagged():
    excluded = torch.tensor([[True, True, True], [False, True, True]])
    drawn, exists = hard_negatives(torch.zeros(2, 3), excluded)
    assert exists.tolist() == [False, True]
    assert drawn[1] == 0 and 0 <= drawn[0] < 3


@pytest.mark.parametrize(
    "row",
    [
        [NAN, NAN, NAN, NAN],
        [NAN, 1.0, NAN, 2.0],
        [-INF, -INF, -INF, -INF],
        [INF, -INF, INF, 0.0],
        [1e4, -1e4, -1e4, -1e4],  # all the mass on the excluded column
        [3e38, -3e38, -3e38, -3e38],
    ],
)
def test_degenerate_similarities_still_give_an_allowed_column(row):
    excluded = torch.eye(4, dtype=torch.bool)[[0]].expand(64, 4)
    drawn, exists = hard_negatives(torch.tensor([row] * 64), excluded)
    assert exists.all() and (drawn != 0).all() and (drawn < 4).all()


def test_draws_follow_the_softmax_of_the_similarities():
    torch.manual_seed(0)
    similarity = torch.tensor([2.0, 5.0, 1.0, 0.0, 1.5]).expand(40_000, 5)
    excluded = torch.tensor([False, True, False, False, False]).expand(40_000, 5)
    drawn, _ = hard_negatives(similarity, excluded)
    found = torch.bincount(drawn, minlength=5) / len(drawn)
    expected = similarity[0].masked_fill(excluded[0], -INF).softmax(-1)
    torch.testing.assert_close(found, expected, rtol=0, atol=0.015)


def test_drawing_reads_nothing_back_from_the_device():
    similarity, excluded = torch.randn(4, 4), torch.eye(4, dtype=torch.bool)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        hard_negatives(similarity, excluded)
    called = {event.key for event in profile.key_averages()}
    assert "aten::argmax" in called and not called & {
        "aten::item",
        "aten::_local_scalar_dense",
        "aten::nonzero",
    }


def test_the_seed_decides_the_draw():
    def draw():
        torch.manual_seed(3)
        return hard_negatives(torch.zeros(8, 100), torch.zeros(8, 100, dtype=torch.bool))[0]

    assert torch.equal(draw(), draw())
    assert len(set(draw().tolist())) > 3


def test_bf16_similarities_are_accepted_and_get_no_gradient():
    similarity = torch.randn(3, 3, dtype=torch.bfloat16, requires_grad=True)
    drawn, exists = hard_negatives(similarity, torch.eye(3, dtype=torch.bool))
    assert drawn.dtype == torch.int64 and exists.all() and not drawn.requires_grad


def test_loss_is_the_mean_over_the_pairs_that_exist():
    logits, target = torch.randn(4, 2), torch.tensor([1, IGNORED, 0, 1])
    kept = [0, 2, 3]
    torch.testing.assert_close(itm_loss(logits, target), F.cross_entropy(logits[kept], target[kept]))
    torch.testing.assert_close(itm_loss(logits[:2], target[:2]), F.cross_entropy(logits[:1], target[:1]))
    torch.testing.assert_close(F.cross_entropy(logits, target), itm_loss(logits, target))  # it ignores IGNORED too
    assert itm_loss(logits.bfloat16(), target).dtype == torch.float32


def test_loss_of_ignored_pairs_alone_is_zero_with_gradient():
    logits = torch.randn(2, 2, requires_grad=True)
    value = itm_loss(logits, torch.tensor([IGNORED, IGNORED]))
    value.backward()
    assert value == 0 and logits.grad.abs().max() == 0


def test_index_one_means_match():
    sure = torch.tensor([[-9.0, 9.0]])
    assert itm_loss(sure, torch.tensor([1])) < 1e-3 < itm_loss(sure, torch.tensor([0]))


@pytest.mark.parametrize(("kind", "parameters"), [("linear", 8 * 2 + 2), ("mlp", 8 * 16 + 16 + 32 + 16 * 2 + 2)])
def test_head_is_albefs_linear_or_xvlms_two_layers(kind, parameters):
    head = ITMHead(8, kind)
    assert sum(p.numel() for p in head.parameters()) == parameters
    assert head(torch.randn(3, 8)).shape == (3, 2)


def test_weights_are_a_softmax_over_the_row_and_a_floor_where_one_is_asked_for():
    similarity, none = torch.tensor([[0.0, 3.0], [1.0, 1.0]]).log(), torch.zeros(2, 2).bool()
    torch.testing.assert_close(negative_weights(similarity, none), torch.tensor([[0.0, 1.0], [0.5, 0.5]]))
    torch.testing.assert_close(negative_weights(similarity, none, 0.25), torch.tensor([[0.25, 1.25], [0.75, 0.75]]))
    torch.manual_seed(0)
    drawn, _ = hard_negatives(torch.tensor([[0.0, 20.0]]).expand(500, 2), none[:1].expand(500, 2))
    assert (drawn == 1).all()  # by default there is none


@pytest.mark.parametrize("floor", [0.0, 0.3])
def test_negatives_are_drawn_by_their_weights(floor):
    torch.manual_seed(0)
    similarity = torch.tensor([[2.0, 0.0, 1.0, -30.0]])
    excluded = torch.tensor([[True, False, False, False]])
    weights = negative_weights(similarity, excluded, floor)[0]
    assert weights[0] == 0 and weights[3] == pytest.approx(floor, abs=1e-6)
    drawn, _ = hard_negatives(similarity.expand(20_000, 4), excluded.expand(20_000, 4), floor)
    found = torch.bincount(drawn, minlength=4) / 20_000
    torch.testing.assert_close(found, weights / weights.sum(), atol=0.015, rtol=0)
