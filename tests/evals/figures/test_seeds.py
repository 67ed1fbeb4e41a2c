"""What several seeds say: against tables of Student's t, and by hand."""

import math

import pytest

from relvlm.evals.figures.seeds import comparison_lines, holm, paired, spread, t_quantile, t_two_sided


@pytest.mark.parametrize(
    ("df", "quantile"), [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (5, 2.571), (9, 2.262), (30, 2.042)]
)
def test_students_t_is_that_of_the_tables(df, quantile):
    assert t_quantile(df) == pytest.approx(quantile, abs=5e-4)
    assert t_two_sided(quantile, df) == pytest.approx(0.05, abs=5e-5)
    assert t_two_sided(-quantile, df) == t_two_sided(quantile, df)
    assert t_two_sided(0.0, df) == pytest.approx(1)


def test_the_interval_of_a_mean_holds_seeds_and_examples():
    values = [50.0, 54.0, 52.0]  # standard deviation 2
    over_seeds = 4.303 * 2 / math.sqrt(3)
    alone, both = spread(values), spread(values, [(48.0, 52.0)] * 3)
    assert (alone.mean, alone.sd, alone.seeds) == (52.0, 2.0, 3)
    assert alone.high - alone.mean == pytest.approx(over_seeds, abs=1e-2)
    assert both.high - both.mean == pytest.approx(math.hypot(over_seeds, 2.0), abs=1e-2)


def test_what_examples_leave_open_does_not_shrink_with_more_seeds():
    few, many = (spread([50.0] * n, [(45.0, 55.0)] * n) for n in (2, 50))
    assert few.low == pytest.approx(many.low) == pytest.approx(45.0)


def test_an_interval_stays_within_percent():
    found = spread([1.0, 99.0])
    assert (found.low, found.high) == (0.0, 100.0)


def test_one_seed_has_no_spread():
    found = spread([50.0], [(45.0, 55.0)])
    assert (found.mean, found.sd, found.low, found.high) == (50.0, None, None, None)
    assert paired([1.0], [2.0]) is None


def test_a_paired_test_by_hand():
    """Differences 1, 2, 3: mean 2, error 1 / sqrt 3, t = 2 sqrt 3 at two degrees of freedom."""
    found = paired([10.0, 20.0, 30.0], [11.0, 22.0, 33.0])
    assert found.difference == 2.0 and found.p == pytest.approx(0.0742, abs=1e-4)
    assert found.high - 2.0 == pytest.approx(4.303 / math.sqrt(3), abs=1e-3)
    assert paired([11.0, 22.0, 33.0], [10.0, 20.0, 30.0]).difference == -2.0


def test_differences_that_are_all_equal_are_no_certainty():
    """Figures of few examples are equal by chance; five of one sign come by chance once in sixteen times."""
    assert paired([1.0, 2.0], [2.0, 3.0]).p == 0.5 and paired([1.0] * 5, [0.0] * 5).p == 1 / 16
    assert paired([1.0, 2.0], [1.0, 2.0]).p == 1.0
    (_, line) = comparison_lines([("A - B", "SVO", paired([1.0, 2.0], [2.0, 3.0]))])
    assert line == ["A - B", "SVO", "+1.0", "", "0.5", "0.5", "2"]


def test_holm_multiplies_the_smallest_most_and_keeps_the_order():
    assert holm([0.03, 0.01, 0.04]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0] and holm([]) == []
