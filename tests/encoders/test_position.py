"""Tables of positions for another image or window size: splines in their own words, and BEiT's progression."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from relvlm.encoders.position import (
    _progression,
    cubic_spline,
    position_resizer,
    resize_bias_table,
    resize_positions,
)

KNOTS = torch.tensor([-5.0, -2.5, -1.0, 0.0, 1.0, 2.0, 4.5]).double()
POINTS = torch.linspace(-5, 4.5, 39).double()


def test_a_table_of_the_same_size_is_left_alone():
    positions, biases = torch.randn(1, 1 + 9, 4), torch.randn(25, 2)
    assert resize_positions(positions, 3) is positions
    assert resize_bias_table(biases, 3) is biases


@pytest.mark.parametrize(("old", "new"), [(3, 5), (6, 4)])
def test_patches_are_resized_as_an_image_and_the_first_token_stays(old, new):
    torch.manual_seed(0)
    table = torch.randn(1, 1 + old**2, 4)
    found = resize_positions(table, new)
    assert found.shape == (1, 1 + new**2, 4) and torch.equal(found[:, 0], table[:, 0])
    for channel in range(4):
        image = table[0, 1:, channel].view(1, 1, old, old)
        expected = F.interpolate(image, size=(new, new), mode="bicubic", align_corners=False).flatten()
        torch.testing.assert_close(found[0, 1:, channel], expected)
    assert resize_positions(table.bfloat16(), new).dtype == torch.bfloat16


def test_the_resizer_is_a_matrix_that_keeps_the_first_token():
    torch.manual_seed(0)
    table, matrix = torch.randn(1, 1 + 16, 3), position_resizer(4, 3, torch.device("cpu"))
    assert matrix.shape == (10, 17) and matrix.dtype == torch.float32
    assert matrix[0].tolist() == [1.0] + [0.0] * 16 and not matrix[1:, 0].any()
    torch.testing.assert_close(matrix @ table, resize_positions(table, 3))
    torch.testing.assert_close(matrix[1:].sum(1), torch.ones(9))


@pytest.mark.parametrize("power", [0, 1, 2, 3])
def test_a_not_a_knot_spline_is_exact_on_cubics(power):
    found = cubic_spline(KNOTS, POINTS) @ KNOTS**power
    torch.testing.assert_close(found, POINTS**power, rtol=0, atol=1e-9)


def test_a_spline_goes_through_its_knots_without_a_kink():
    """Value, slope and curvature at a knot are the same from both sides, of values that are no cubic's."""
    torch.testing.assert_close(cubic_spline(KNOTS, KNOTS), torch.eye(7).double(), rtol=0, atol=1e-12)
    values, h = torch.tensor([0.0, 1.0, -1.0, 2.0, 0.5, -2.0, 3.0]).double(), 1e-3
    for knot in KNOTS[1:-1]:
        steps = torch.arange(-3, 4).double() * h
        y = cubic_spline(KNOTS, knot + steps) @ values
        left, right = (y[3] - 2 * y[2] + y[1]) / h**2, (y[3] - 2 * y[4] + y[5]) / h**2
        assert left.item() == pytest.approx(right.item(), abs=0.2)
        slopes = (3 * y[3] - 4 * y[2] + y[1]) / (2 * h), (-3 * y[3] + 4 * y[4] - y[5]) / (2 * h)
        assert slopes[0].item() == pytest.approx(slopes[1].item(), abs=1e-3)


@pytest.mark.parametrize("end", [0, -1])
def test_the_outermost_two_pieces_are_one_cubic(end):
    """Not a knot: the third derivative does not jump at the second one from either end."""
    values = torch.tensor([0.0, 1.0, -1.0, 2.0, 0.5, -2.0, 3.0]).double()
    pair = (-5.0, -1.0) if end == 0 else (1.0, 4.5)
    x = torch.linspace(*pair, 12).double()
    y = cubic_spline(KNOTS, x) @ values
    fit = torch.linalg.lstsq(torch.stack([x**p for p in range(4)], 1), y[:, None]).solution
    torch.testing.assert_close(torch.stack([x**p for p in range(4)], 1) @ fit, y[:, None])


def test_beyond_the_knots_a_spline_stays_at_its_end():
    found = cubic_spline(KNOTS, torch.tensor([-9.0, 5.0, 4.5]).double())
    torch.testing.assert_close(found[0], torch.eye(7)[0].double())
    torch.testing.assert_close(found[1:], torch.eye(7)[[6, 6]].double(), rtol=0, atol=1e-12)


def beits_progression(count: int, reach: int) -> list[float]:
    """As BEiT's run_class_finetuning.py finds the ratio and lays out the places."""
    low, high = 1.01, 1.5
    while high - low > 1e-6:
        ratio = (low + high) / 2.0
        if (1.0 - ratio**count) / (1.0 - ratio) > reach:
            high = ratio
        else:
            low = ratio
    places, at = [], 0.0
    for power in range(count):
        at += ratio**power
        places.append(at)
    return [-x for x in reversed(places)] + [0.0] + places


@pytest.mark.parametrize(("count", "reach"), [(6, 11), (3, 4), (2, 9), (5, 3)])
def test_places_are_spread_in_a_geometric_progression(count, reach):
    """Up to the reach, where a ratio between 1.01 and 1.5 gets there."""
    found = _progression(count, reach)
    assert found.tolist() == pytest.approx(beits_progression(count, reach), rel=1e-12, abs=0)
    if (count, reach) in ((6, 11), (3, 4)):
        assert found[-1].item() == pytest.approx(reach, abs=1e-4)


@pytest.mark.parametrize(("old", "new"), [(3, 5), (4, 2), (7, 12)])
def test_a_bias_table_goes_through_a_spline_in_both_directions(old, new):
    """Of a table that is a product of cubics of the places: those cubics at the new offsets."""
    old_side, new_side = 2 * old - 1, 2 * new - 1
    places = torch.tensor(beits_progression(old_side // 2, new_side // 2), dtype=torch.float64)
    wanted = (torch.arange(new_side).double() - new_side // 2).clamp(places[0], places[-1])

    def rows_and_columns(x: Tensor, scale: float) -> Tensor:
        x = x * scale
        return torch.outer(1 + x - 0.5 * x**3, 2 - x**2).flatten()

    table = torch.stack([rows_and_columns(places, scale) for scale in (0.1, 0.2)], 1)
    expected = torch.stack([rows_and_columns(wanted, scale) for scale in (0.1, 0.2)], 1)
    torch.testing.assert_close(resize_bias_table(table, new), expected)
    assert resize_bias_table(table.float(), new).dtype == torch.float32
    assert resize_bias_table(table, new).is_contiguous()
