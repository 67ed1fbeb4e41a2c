"""The name of a model's weights."""

import pytest
import torch
from torch import nn

from relvlm.evals.scoring.weights import weights_hash


def model() -> nn.Linear:
    made = nn.Linear(2, 3)
    with torch.no_grad():
        made.weight.copy_(torch.arange(6.0).reshape(3, 2))
        made.bias.zero_()
    return made


def test_equal_weights_have_one_name() -> None:
    assert weights_hash(model()) == weights_hash(model()) and len(weights_hash(model())) == 64


@pytest.mark.parametrize("change", ["value", "dtype", "shape", "name"])
def test_another_value_dtype_shape_or_name_changes_it(change: str) -> None:
    changed: nn.Module = model()
    with torch.no_grad():
        if change == "value":
            changed.weight[2, 1] += 1e-6
        elif change == "dtype":
            changed = changed.to(torch.float64)
        elif change == "shape":
            changed.weight = nn.Parameter(changed.weight.reshape(2, 3))
        else:
            changed = nn.Sequential(changed)
    assert weights_hash(changed) != weights_hash(model())


def test_a_scalar_and_a_view_are_hashed_by_their_values() -> None:
    module = nn.Module()
    module.scalar = nn.Parameter(torch.tensor(1.0))
    module.view = nn.Parameter(torch.arange(6.0).reshape(2, 3).T)
    other = nn.Module()
    other.scalar = nn.Parameter(torch.tensor(1.0))
    other.view = nn.Parameter(torch.arange(6.0).reshape(2, 3).T.contiguous())
    assert weights_hash(module) == weights_hash(other)
