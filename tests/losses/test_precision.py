"""Losses are computed in fp32, or in fp64 where what they are given is."""

import pytest
import torch

from relvlm.losses.precision import at_least_fp32


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_half_precision_becomes_single_and_double_stays(given, found):
    x = torch.tensor([0.1, 1000.5]).to(given)
    y = at_least_fp32(x)
    assert y.dtype == found and torch.equal(y.double(), x.double())
