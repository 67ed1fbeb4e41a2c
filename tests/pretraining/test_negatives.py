"""Which pairs must not serve as negatives, and how hard ones are drawn."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from toys import VIT, five_groups, toy_pretraining

from relvlm.losses.itm import IGNORED, hard_negatives
from relvlm.pretraining import step as module
from relvlm.pretraining.encode import Features
from relvlm.pretraining.negatives import (
    Negatives,
    counted_pairs,
    draw_negatives,
    excluded_pairs,
    false_negatives,
    group_keys,
    other_pools,
    similarities,
    with_own_pairs,
)

KEYS = torch.tensor([[1, 10, 1], [2, 10, 1], [3, 11, 0], [3, 12, 0], [4, 11, 1]])  # text, image, seen whole?


def test_false_negatives_are_never_drawn():
    excluded = false_negatives(KEYS, KEYS)
    assert excluded.tolist() == [
        [True, True, False, False, False],
        [True, True, False, False, False],
        [False, False, True, True, True],
        [False, False, True, True, False],
        [False, False, False, False, True],
    ]
    for _ in range(50):
        drawn, exists = hard_negatives(torch.randn(5, 5), excluded)
        assert exists.all() and not excluded[torch.arange(5), drawn].any()


def test_official_negatives_leave_out_the_pair_itself_alone():
    keys = group_keys(five_groups("captions"))  # texts 1 and 4 are the same, images 0 and 4 too
    assert excluded_pairs(keys, keys, "masked").sum() > 5
    official = excluded_pairs(keys, keys, "official")
    assert not official.any()
    features = Features(*[F.normalize(torch.randn(5, 16), dim=-1)] * 2)
    seen = set()
    for _ in range(60):
        drawn = draw_negatives(features, features, torch.tensor([0.07]), official, 0.0)
        assert (drawn.view_of_text != torch.arange(5)).all() and (drawn.target[5:] == 0).all()
        seen.add(int(drawn.view_of_text[1]))
    assert 4 in seen


def test_keys_name_text_image_pool_and_whether_the_image_is_seen_whole():
    batch = five_groups("entities")
    assert group_keys(batch).tolist() == [
        [1, 10, 1, 0], [2, 10, 0, 0], [3, 11, 0, 0], [4, 11, 1, 0], [2, 12, 0, 0],
    ]  # fmt: skip
    assert group_keys(replace(batch, pool=torch.tensor([6, 6, 6, 6, 7])))[:, 3].tolist() == [6, 6, 6, 6, 7]


def test_similarities_are_over_the_temperature_each_way():
    image, text = torch.eye(2), torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    t2i, i2t = similarities(Features(image, text), torch.tensor([0.5]), Features(2 * image, 3 * text))
    torch.testing.assert_close(t2i, text @ (2 * image).T / 0.5)
    torch.testing.assert_close(i2t, image @ (3 * text).T / 0.5)


def test_hard_negatives_are_as_sharp_as_the_temperature_says():
    """Of views at similarity .5 and .3 to a text, the nearer is drawn e^(.2 / temperature) times as often."""
    image = torch.tensor([[1.0, 0.0], [0.5, 0.0], [0.3, 0.0]])
    features = Features(image, torch.tensor([[1.0, 0.0]] * 3))
    none = torch.zeros(3, 3).bool()
    torch.manual_seed(0)
    for temperature, expected in ((0.1, 1 / (1 + 2.718281828**2)), (1.0, 1 / (1 + 2.718281828**0.2))):
        drawn = [
            draw_negatives(features, features, torch.tensor([temperature]), none, 0.0).view_of_text[0]
            for _ in range(2000)
        ]
        share = (torch.stack(drawn) == 2).float().mean().item()
        assert share == pytest.approx(expected, abs=4 * (expected * (1 - expected) / 2000) ** 0.5)


def test_negatives_are_drawn_by_the_keys_features():
    """A teacher's, where there is one: with those the second view is far from every text."""
    own = Features(torch.eye(3), torch.eye(3))
    keys = Features(torch.tensor([[1.0, 0, 0], [-9.0, -9, -9], [0, 0, 1.0]]), torch.eye(3))
    drawn = [draw_negatives(own, keys, torch.tensor([0.01]), torch.zeros(3, 3).bool(), 0.0) for _ in range(30)]
    assert {int(d.view_of_text[0]) for d in drawn} == {2} and {int(d.view_of_text[2]) for d in drawn} == {0}


def test_the_floor_lets_far_pairs_through():
    features = Features(torch.tensor([[1.0], [1.0], [-1.0]]), torch.tensor([[1.0]] * 3))
    none, cold = torch.zeros(3, 3).bool(), torch.tensor([0.01])
    torch.manual_seed(0)
    drawn = {
        floor: {int(draw_negatives(features, features, cold, none, floor).view_of_text[0]) for _ in range(200)}
        for floor in (0.0, 1.0)
    }
    assert drawn == {0.0: {1}, 1.0: {1, 2}}


def test_excluded_pairs_are_drawn_in_neither_direction():
    """Text 0 may go with view 1 alone, view 0 with text 2 alone."""
    excluded = torch.tensor([[False, False, True], [True, False, False], [False, False, False]])
    features = Features(torch.randn(3, 4), torch.randn(3, 4))
    for _ in range(20):
        drawn = draw_negatives(features, features, torch.tensor([1.0]), excluded, 0.0)
        assert drawn.view_of_text[0] == 1 and drawn.text_of_view[0] == 2


def test_a_group_without_a_negative_is_ignored():
    excluded = torch.tensor([[False, True, True], [False, False, False], [False, False, False]])
    features = Features(torch.randn(3, 4), torch.randn(3, 4))
    target = draw_negatives(features, features, torch.tensor([1.0]), excluded, 0.0).target
    assert target.tolist() == [1, 1, 1, IGNORED, 0, 0, 0, 0, 0]
    excluded = excluded.T
    target = draw_negatives(features, features, torch.tensor([1.0]), excluded, 0.0).target
    assert target.tolist() == [1, 1, 1, 0, 0, 0, IGNORED, 0, 0]


def test_given_negatives_all_count():
    given = Negatives.given(torch.tensor([1, 0]), torch.tensor([1, 0]))
    assert given.target.tolist() == [1, 1, 0, 0, 0, 0]


def test_counted_pairs_are_matches_and_whoever_has_a_negative():
    """Text 0 and view 1 have none here: of three texts and three views, two each."""
    keys = torch.tensor([[1, 10, 1, 0], [1, 11, 1, 0], [1, 12, 1, 0]])
    assert counted_pairs(keys, "masked").item() == 3
    assert counted_pairs(keys, "official").item() == 9
    keys = torch.tensor([[1, 10, 1, 0], [2, 11, 1, 0], [2, 12, 1, 0]])
    assert counted_pairs(keys, "masked").item() == 9
    assert counted_pairs(keys[:1], "official").item() == 1
    keys = torch.tensor([[1, 10, 1, 0], [2, 10, 0, 0], [3, 10, 0, 0]])  # any text may be of the image, not of its parts
    assert counted_pairs(keys, "masked").item() == 3 + 3 + 2


def test_a_group_that_is_alone_in_its_pool_has_no_negative():
    """Of pools of two and one groups: three matches, two texts and two views."""
    keys = torch.tensor([[1, 10, 1, 5], [2, 11, 1, 5], [3, 12, 1, 6]])
    assert counted_pairs(keys, "official").item() == 3 + 2 + 2
    features = Features(torch.randn(3, 4), torch.randn(3, 4))
    none = excluded_pairs(keys, keys, "official")
    drawn = draw_negatives(features, features, torch.tensor([1.0]), none, 0.0, other_pools(keys))
    assert drawn.view_of_text[:2].tolist() == drawn.text_of_view[:2].tolist() == [1, 0]
    assert drawn.target.tolist() == [1, 1, 1, 0, 0, IGNORED, 0, 0, IGNORED]


@pytest.mark.parametrize("floor", [0.0, 0.5])
def test_what_a_pool_draws_depends_on_nothing_outside_it(floor):
    """Not even with a floor, which is added to probabilities within the pool."""
    torch.manual_seed(0)
    features = Features(torch.randn(7, 4), torch.randn(7, 4))
    keys = torch.stack([torch.arange(7)] * 2 + [torch.ones(7).long(), torch.tensor([0, 0, 0, 0, 1, 1, 1])], 1)
    cold = torch.tensor([0.3])

    def of(rows: slice, draws: torch.Tensor) -> Negatives:
        excluded = excluded_pairs(keys[rows], keys[rows], "masked")
        part = Features(*(x[rows] for x in features))
        return draw_negatives(part, part, cold, excluded, floor, other_pools(keys[rows]), draws[rows])

    for _ in range(40):
        draws = torch.rand(7, 2)
        whole, first, second = (of(rows, draws) for rows in (slice(0, 7), slice(0, 4), slice(4, 7)))
        for name in ("view_of_text", "text_of_view"):
            of_parts = torch.cat([getattr(first, name), getattr(second, name) + 4])
            assert torch.equal(getattr(whole, name), of_parts)


def test_texts_and_views_have_draws_of_their_own():
    features = Features(torch.ones(40, 1), torch.ones(40, 1))
    draws = torch.stack([torch.zeros(40), torch.full((40,), 1 - 2**-24)], 1)
    none = torch.zeros(40, 40).bool()
    drawn = draw_negatives(features, features, torch.tensor([1.0]), none, 0.0, draws_G2=draws)
    assert drawn.view_of_text.tolist() == [1] + [0] * 39 and drawn.text_of_view.tolist() == [39] * 39 + [38]


def test_the_own_pair_is_always_excluded():
    assert with_own_pairs(torch.zeros(2, 2).bool()).tolist() == [[True, False], [False, True]]


def test_what_is_drawn_follows_from_the_batch(monkeypatch):
    """Its draws decide, not torch's generator, and its pools are kept to."""
    step, found = toy_pretraining(VIT), []
    monkeypatch.setattr(module, "draw_negatives", lambda *args: found.append(draw_negatives(*args)) or found[-1])
    batch = replace(five_groups("captions"), pool=torch.tensor([0, 0, 0, 1, 1]))
    draws = torch.rand(2, 5, 2)
    for seed, which in ((1, 0), (2, 0), (2, 1)):
        torch.manual_seed(seed)
        step(replace(batch, draws=draws[which]))
    first, again, other = found
    assert torch.equal(torch.cat(first), torch.cat(again)) and not torch.equal(torch.cat(first), torch.cat(other))
    for drawn in found:
        for negative in (drawn.view_of_text, drawn.text_of_view):
            assert ((negative < 3) == (torch.arange(5) < 3)).all()
