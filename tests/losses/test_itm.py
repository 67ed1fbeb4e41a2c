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


def test_a_draw_is_the_first_column_whose_weights_so_far_exceed_it():
    """Weights 1, 3, 0 (excluded) and 4 of 8: each edge belongs to the column that begins there."""
    similarity = torch.tensor([[1.0, 3.0, 9.0, 4.0]]).log().expand(6, 4)
    excluded = torch.tensor([[False, False, True, False]]).expand(6, 4)
    draws = torch.tensor([0.0, 0.124, 0.126, 0.499, 0.501, 1 - 2**-24])
    drawn, _ = hard_negatives(similarity, excluded, draws_G=draws)
    assert drawn.tolist() == [0, 0, 1, 1, 3, 3]


def test_a_draw_at_an_edge_is_of_the_column_that_begins_there():
    drawn, _ = hard_negatives(torch.zeros(4, 4), torch.zeros(4, 4).bool(), draws_G=torch.arange(4) / 4)
    assert drawn.tolist() == [0, 1, 2, 3]


def test_rows_whose_weights_would_underflow_are_drawn_from_by_their_weights():
    """Beside an excluded column of all the mass, 1 and 3 of 4."""
    similarity = torch.tensor([[1000.0, 1.0, 3.0]])
    similarity[0, 1:].log_()
    excluded = torch.tensor([[True, False, False]]).expand(4, 3)
    drawn, _ = hard_negatives(similarity.expand(4, 3), excluded, draws_G=torch.tensor([0.0, 0.24, 0.26, 0.99]))
    assert drawn.tolist() == [1, 1, 2, 2]


@pytest.mark.parametrize("floor", [0.0, 1e-5])
@pytest.mark.parametrize("draw", [0.0, 2.0**-24, 0.5, 1 - 2**-24, 1.0])  # the last as if a sum had been rounded
def test_no_draw_is_so_extreme_that_it_gives_an_excluded_column(draw, floor):
    """At rows of many columns, whose sums are rounded, with the excluded ones at either end and all the mass there."""
    torch.manual_seed(0)
    similarity, excluded = 30 * torch.randn(64, 999), torch.rand(64, 999) < 0.5
    excluded[:, [0, -1]] = True
    similarity[excluded] += 1000.0
    drawn, exists = hard_negatives(similarity, excluded, floor, torch.full((64,), draw))
    assert exists.all() and not excluded[torch.arange(64), drawn].any()


@pytest.mark.parametrize("floor", [0.0, 0.2])
def test_given_draws_follow_the_weights(floor):
    """Chi-squared of 20,000 evenly spread draws over 6 columns: below 1, where chance alone would give about 5."""
    similarity = torch.tensor([[2.0, 9.0, 1.0, 0.5, -1.0, 1.7, -20.0]])
    excluded = torch.tensor([[False, True, False, False, False, False, False]])
    weights = negative_weights(similarity if floor else similarity.masked_fill(excluded, -INF), excluded, floor)[0]
    draws = torch.arange(20_000) / 20_000
    drawn, _ = hard_negatives(similarity.expand(20_000, 7), excluded.expand(20_000, 7), floor, draws)
    found, expected = torch.bincount(drawn, minlength=7), 20_000 * weights / weights.sum()
    assert found[1] == 0
    assert ((found - expected) ** 2 / expected.clamp(min=1))[weights > 0].sum() < 1


def test_columns_of_no_weight_and_other_columns_leave_a_draw_as_it_is():
    """A pool's draw is the same in a batch of any size: columns apart are excluded, and of no weight."""
    torch.manual_seed(0)
    similarity, draws = torch.randn(8, 8), torch.rand(8)
    own = torch.eye(8, dtype=torch.bool)
    alone, _ = hard_negatives(similarity, own, draws_G=draws)
    wide = torch.cat([torch.randn(8, 5), similarity, torch.randn(8, 3)], 1)
    beside, _ = hard_negatives(wide, F.pad(own, (5, 3), value=True), draws_G=draws)
    assert torch.equal(beside - 5, alone)
