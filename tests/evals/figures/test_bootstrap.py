"""Intervals, paired tests and rank correlations against other ways to them."""

import math

import numpy as np
import pytest

from relvlm.errors import UserError
from relvlm.evals.figures import bootstrap
from relvlm.evals.figures.bootstrap import intervals, mcnemar, paired, spearman
from relvlm.evals.figures.outcomes import Outcomes
from relvlm.evals.figures.shares import wilson


def shares(right: list[float], name: str = "overall") -> Outcomes:
    column = np.array(right, dtype=float)[:, None]
    units = tuple(map(str, range(len(right))))
    return Outcomes(units, (name,), column, np.ones_like(column), {})


def test_bootstrap_interval_of_a_share_is_near_wilson() -> None:
    found = intervals(shares([1.0] * 150 + [0.0] * 50), draws=2000)["overall"]
    low, high = wilson(150, 200)
    assert found.value == 75
    assert (found.low, found.high) == pytest.approx((low, high), abs=1.0)


def test_the_same_seed_gives_the_same_interval() -> None:
    data = shares([1.0, 0.0, 1.0] * 20)
    assert intervals(data, 200) == intervals(data, 200)
    assert intervals(data, 200) != intervals(data, 200, seed=1)


def test_equal_models_do_not_differ_and_a_better_one_does() -> None:
    rng = np.random.default_rng(0)
    base = (rng.random(400) < 0.6).astype(float)
    better = np.maximum(base, rng.random(400) < 0.2)
    same = paired(shares(list(base)), shares(list(base)))["overall"]
    assert (same.low, same.high, same.p, same.mcnemar) == (0, 0, 1, 1)
    found = paired(shares(list(base)), shares(list(better)))["overall"]
    assert found.second - found.first > 0 and found.low > 0
    assert found.p < 0.01 and found.mcnemar is not None and found.mcnemar < 0.01


def test_paired_test_joins_the_same_examples_whatever_their_order() -> None:
    first = shares([1.0, 1.0, 0.0, 0.0])
    turned = Outcomes(first.units[::-1], first.names, first.right[::-1], first.counted, {})
    found = paired(first, turned)["overall"]
    assert (found.low, found.high) == (0, 0)


def test_models_scored_on_other_examples_are_refused() -> None:
    with pytest.raises(UserError, match="'2' is scored by one of the two only"):
        paired(shares([1.0, 0.0]), shares([1.0, 0.0, 1.0]))


@pytest.mark.parametrize(("b", "c"), [(0, 0), (1, 0), (5, 9), (40, 70), (0, 12)])
def test_mcnemar_is_the_exact_binomial(b: int, c: int) -> None:
    n = b + c
    tail = sum(math.comb(n, i) for i in range(min(b, c) + 1)) / 2**n
    assert mcnemar(b, c) == pytest.approx(min(1.0, 2 * tail))


def test_spearman_by_hand_and_with_ties() -> None:
    assert spearman(np.array([1, 2, 3, 9]), np.array([2, 4, 6, 8])) == pytest.approx(1)
    assert spearman(np.array([1, 2, 3]), np.array([3, 2, 1])) == pytest.approx(-1)
    assert spearman(np.array([1, 1, 2, 3]), np.array([1, 2, 3, 4])) == pytest.approx(0.948683, abs=1e-6)
    assert math.isnan(spearman(np.array([1, 1]), np.array([1, 2])))


def test_a_draw_has_as_many_units_as_there_are() -> None:
    (first, second) = bootstrap._weights(7, 150, seed=0)
    assert (first.shape, second.shape) == ((100, 7), (50, 7))
    assert (first.sum(1) == 7).all() and (second.sum(1) == 7).all()
    assert not np.array_equal(first[:50], second)


def test_an_interval_holds_95_percent_of_the_draws() -> None:
    assert bootstrap._percentiles(np.arange(1001.0)) == (25, 975)
    assert bootstrap._percentiles(np.array([np.nan, 1.0, 1.0])) == (1, 1)
    assert all(map(math.isnan, bootstrap._percentiles(np.array([np.nan]))))


@pytest.mark.parametrize(
    ("below", "zero", "above", "p"),
    [(0, 0, 99, 0.02), (99, 0, 0, 0.02), (9, 0, 90, 0.2), (40, 20, 40, 1), (0, 100, 0, 1), (0, 9, 90, 0.2)],
)
def test_p_is_twice_the_smaller_side(below: int, zero: int, above: int, p: float) -> None:
    difference = np.array([-1.0] * below + [0.0] * zero + [1.0] * above)
    assert bootstrap._two_sided(difference) == pytest.approx(p, abs=0.003)


def test_p_is_of_the_draws_that_have_the_figure() -> None:
    found = np.repeat([-1.0, 1.0], [100, 300])
    absent = np.full(600, np.nan)
    assert bootstrap._two_sided(np.concatenate([found, absent])) == bootstrap._two_sided(found)
    assert bootstrap._two_sided(absent) == 1


def test_more_draws_than_asked_for_are_not_made() -> None:
    assert bootstrap.DRAWS == 1000
    data = shares([1.0, 0.0, 1.0, 0.0, 1.0])
    assert len(bootstrap._draws(data, 30, 0)["overall"]) == 30
    assert intervals(data) == intervals(data, 1000, seed=0)
    assert paired(data, data) == paired(data, data, 1000, seed=0)


def test_paired_draws_are_those_of_the_same_units() -> None:
    first, second = shares([1.0, 0.0] * 20), shares([0.0, 1.0] * 20)
    found = paired(first, second, 200)["overall"]
    assert found.low < -20 and found.high > 20 and found.p > 0.5
    shifted = shares([1.0] * 40)
    found = paired(first, shifted, 200)["overall"]
    assert (found.first, found.second) == (50, 100)
    assert 30 < found.low < 50 < found.high < 70
    assert found.mcnemar == pytest.approx(mcnemar(0, 20))


def test_mcnemar_counts_only_where_the_two_disagree() -> None:
    first, second = shares([1.0, 1.0, 1.0, 0.0, 0.0, 1.0]), shares([1.0, 0.0, 0.0, 1.0, 0.0, 1.0])
    assert paired(first, second, 10)["overall"].mcnemar == pytest.approx(mcnemar(2, 1))


def test_mcnemar_is_of_shares_of_examples_alone() -> None:
    first, second = shares([1.0, 0.0]), shares([0.0, 1.0])
    several = Outcomes(first.units, first.names, first.right, first.counted * 2, {})
    assert paired(several, several, 10)["overall"].mcnemar is None
    partly = Outcomes(first.units, first.names, first.right, np.array([[1.0], [0.0]]), {})
    assert paired(first, partly, 10)["overall"].mcnemar is None
    assert paired(partly, partly, 10)["overall"].mcnemar == 1
    derived = {"macro": ("mean", ("overall",))}
    with_macro = (Outcomes(o.units, o.names, o.right, o.counted, derived) for o in (first, second))
    assert paired(*with_macro, draws=10)["macro"].mcnemar is None


def test_figures_that_one_of_two_lacks_are_left_out() -> None:
    assert list(paired(shares([1.0, 0.0]), shares([1.0, 0.0], "text"), 10)) == []
