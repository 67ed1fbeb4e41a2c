"""Figures from scores, by hand or by brute force."""

import random

import pytest

from relvlm.evals.figures import shares


def test_wilson_equals_the_textbook_interval() -> None:
    low, high = shares.wilson(8, 10)
    assert (low, high) == pytest.approx((49.016, 94.332), abs=0.01)


@pytest.mark.parametrize(("right", "n"), [(0, 5), (5, 5), (1, 1)])
def test_wilson_stays_within_0_and_100_and_holds_the_share(right: int, n: int) -> None:
    low, high = shares.wilson(right, n)
    assert 0 <= low <= 100 * right / n <= high <= 100
    assert high - low > 10


@pytest.mark.parametrize(
    ("score", "label", "right"),
    [(0.5, True, True), (0.5, False, False), (0.4999, True, False), (0.4999, False, True)],
)
def test_a_score_of_exactly_one_half_counts_as_true(score: float, label: bool, right: bool) -> None:
    assert shares.agrees(score, label) == right
    assert shares.agrees(score + 0.2, label, 0.7) == right


def test_median_threshold_calls_half_of_the_pairs_true() -> None:
    scores = [0.01, 0.02, 0.03, 0.04]
    threshold = shares.median_threshold(scores)
    assert sum(score >= threshold for score in scores) == 2


@pytest.mark.parametrize("seed", range(20))
def test_best_threshold_beats_every_other(seed: int) -> None:
    rng = random.Random(seed)
    scores = [rng.choice([0.1, 0.2, 0.3, 0.4, rng.random()]) for _ in range(15)]
    labels = [rng.random() < 0.5 for _ in scores]

    def right(threshold: float) -> int:
        return sum(shares.agrees(s, label, threshold) for s, label in zip(scores, labels, strict=True))

    brute = max(right(t) for t in (*scores, 2.0))
    assert right(shares.best_threshold(scores, labels)) == brute


@pytest.mark.parametrize(
    ("scores", "labels", "threshold"),
    [
        ([0.1, 0.2, 0.3, 0.4], [0, 0, 1, 1], 0.25),
        ([0.1, 0.3], [1, 1], 0.1),
        ([0.1, 0.3], [0, 0], 0.30000000000000004),
        ([0.1, 0.2, 0.3, 0.4], [1, 0, 0, 1], 0.35),
        ([0.2, 0.2, 0.4], [0, 1, 1], 0.3),  # of two equally good ones
        ([0.1, 0.2, 0.3, 0.4], [0, 1, 0, 1], 0.35),
    ],
)
def test_best_threshold_lies_midway_between_two_scores(scores, labels, threshold) -> None:
    assert shares.best_threshold(scores, [bool(label) for label in labels]) == pytest.approx(threshold, abs=1e-12)


def test_a_share_is_a_percentage_with_wilsons_interval() -> None:
    assert shares.share([True, False, False, True]) == shares.percent(2, 4) == 50
    assert shares.interval95([True] * 8 + [False] * 2) == list(shares.wilson(8, 10))


def test_accuracy_has_sizes_and_intervals_of_all_and_of_groups() -> None:
    found = shares.accuracy([True, False], {"a": [True], "b": [False]})
    assert (found["overall"], found["a"], found["b"], found["n"]) == (50, 100, 0, 2)
    assert found["counts"] == {"a": 1, "b": 1}
    assert found["intervals95"] == {"a": list(shares.wilson(1, 1)), "b": list(shares.wilson(0, 1))}
    assert found["interval95"] == list(shares.wilson(1, 2))
    assert set(shares.accuracy([True])) == {"overall", "n", "interval95"}


def test_a_mean_weighs_groups_equally_and_a_minimum_takes_the_worst() -> None:
    assert shares.combined("mean", [[True], [False] * 9]) == 50
    assert shares.combined("min", [[True], [False, True]]) == 50
