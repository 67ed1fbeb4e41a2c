"""The rule that judges fp32: on each side of its edges."""

import pytest
import torch
from support.closeness import assert_as_close_as

EPSILON = torch.finfo(torch.float32).eps
TRUTH = torch.linspace(1, 2, 64, dtype=torch.float64)


def off(x: torch.Tensor, roundings: float) -> torch.Tensor:
    """`x`, each number off by so many roundings of the size of `x`; in fp64, so that no others are added."""
    return x + roundings * EPSILON * x.square().mean().sqrt()


def judge(actual, plain, truth=TRUTH) -> bool:
    """Whether `actual` is close enough, `plain` being the fp32 numbers nearest to what is said."""
    try:
        assert_as_close_as(actual, plain, truth)
    except AssertionError as error:
        assert "is allowed" in str(error)
        return False
    return True


def single(x: torch.Tensor, roundings: float) -> torch.Tensor:
    return off(x, roundings).float()


@pytest.mark.parametrize(("roundings", "close"), [(19, True), (21, False), (-19, True), (-21, False)])
def test_twice_the_plain_distance_is_allowed(roundings, close):
    assert judge(off(TRUTH, roundings), single(TRUTH, 10)) == close


@pytest.mark.parametrize(("roundings", "close"), [(19, True), (21, False)])
def test_a_plain_output_that_is_right_by_luck_does_not_count_for_more_than_the_others(roundings, close):
    plain = {str(i): single(TRUTH, 10) for i in range(9)} | {"loss": TRUTH[:1].float()}
    truth = dict.fromkeys(plain, TRUTH) | {"loss": TRUTH[:1]}
    actual = truth | {"loss": off(TRUTH[:1], roundings)}
    assert judge(actual, plain, truth) == close


def test_nor_does_one_that_is_far_off_excuse_the_others():
    plain = {str(i): single(TRUTH, 10) for i in range(19)} | {"far": single(TRUTH, 1000)}
    truth = dict.fromkeys(plain, TRUTH)
    assert judge(truth | {"far": off(TRUTH, 1900)}, plain, truth)
    assert not judge(truth | {"3": off(TRUTH, 1000)}, plain, truth)


@pytest.mark.parametrize(("value", "close"), [(1.9, True), (2.1, False)])
def test_zeros_are_as_far_as_a_rounding_of_the_largest_output(value, close):
    zeros = torch.zeros(3, dtype=torch.float64)
    truth, plain = {"a": TRUTH, "b": zeros}, {"a": TRUTH.float(), "b": zeros.float()}
    size = TRUTH.square().mean().sqrt()
    assert judge({"a": TRUTH, "b": zeros + value * EPSILON * size}, plain, truth) == close


def test_what_is_not_a_number_is_not_close():
    wrong = TRUTH.clone()
    wrong[3] = torch.nan
    assert not judge(wrong, single(TRUTH, 10))


def test_plain_outputs_of_something_else_are_an_error():
    with pytest.raises(AssertionError, match="not of the same thing"):
        assert_as_close_as(TRUTH, (1.001 * TRUTH).float(), TRUTH)


@pytest.mark.parametrize("other", [{"a": TRUTH, "c": TRUTH}, {"a": TRUTH}, {"a": TRUTH, "b": TRUTH[:3]}])
def test_outputs_of_other_names_or_shapes_are_an_error(other):
    truth = {"a": TRUTH, "b": TRUTH}
    for three in ((other, truth, truth), (truth, other, truth), (truth, truth, other)):
        with pytest.raises(AssertionError):
            assert_as_close_as(*three)
