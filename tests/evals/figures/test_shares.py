"""Figures from scores, by hand or by brute force."""

import random

import pytest

from relvlm.evals.figures import shares as m


def test_wilson_equals_the_textbook_interval() -> None:
    low, high = m.wilson(8, 10)
    assert (low, high) == pytest.approx((49.016, 94.332), abs=0.01)


@pytest.mark.parametrize(("right", "n"), [(0, 5), (5, 5), (1, 1)])
def test_wilson_stays_within_0_and_100_and_holds_the_share(right: int, n: int) -> None:
    low, high = m.wilson(right, n)
    assert 0 <= low <= 100 * right / n <= high <= 100
    assert high - low > 10


def test_threshold_counts_a_score_of_exactly_one_half_as_true() -> None:
    assert m.thresholded([0.5, 0.5, 0.4999, 0.4999], [True, False, True, False]) == [True, False, False, True]


def test_median_threshold_calls_half_of_the_pairs_true() -> None:
    scores = [0.01, 0.02, 0.03, 0.04]
    threshold = m.median_threshold(scores)
    assert sum(score >= threshold for score in scores) == 2


@pytest.mark.parametrize("seed", range(20))
def test_best_threshold_beats_every_other(seed: int) -> None:
    rng = random.Random(seed)
    scores = [rng.choice([0.1, 0.2, 0.3, 0.4, rng.random()]) for _ in range(15)]
    labels = [rng.random() < 0.5 for _ in scores]

    def right(threshold: float) -> int:
        return sum(m.thresholded(scores, labels, threshold))

    brute = max(right(t) for t in (*scores, 2.0))
    assert right(m.best_threshold(scores, labels)) == brute


def test_macro_weighs_groups_equally() -> None:
    assert m.macro({"small": [True], "large": [False] * 9}) == 50.0
