"""Learning rate at every stage of a run, and which parameters decay."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from relvlm.config import OptimConfig
from relvlm.engine.schedule import build_optimizer, build_scheduler, lr_factor


def factors(decay: str, final_lr: float = 0.0, warmup: int = 4, steps: int = 12) -> list[float]:
    config = OptimConfig(lr=0.2, warmup_steps=warmup, decay=decay, final_lr=final_lr)
    return [lr_factor(step, config, steps) for step in range(steps + 3)]


@pytest.mark.parametrize("decay", ["cosine", "linear", "constant"])
def test_warm_up_rises_linearly_to_the_peak(decay):
    assert factors(decay)[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]


def test_linear_decay_reaches_the_final_rate_at_the_last_step_and_stays():
    assert factors("linear", final_lr=0.02)[4:] == pytest.approx(
        [1 - 0.9 * i / 8 for i in range(9)] + [0.1, 0.1]
    )


def test_cosine_decay_is_half_way_in_the_middle():
    found = factors("cosine", final_lr=0.02)
    assert found[4] == 1.0 and found[8] == pytest.approx(0.55) and found[12:] == pytest.approx([0.1] * 3)
    assert all(a > b for a, b in pairwise(found[4:13]))


def test_constant_stays_at_the_peak():
    assert factors("constant", final_lr=0.02)[4:] == [1.0] * 11


def test_without_warm_up_the_first_step_has_the_peak_rate():
    assert factors("linear", warmup=0)[0] == 1.0


def test_a_run_shorter_than_its_warm_up_never_gets_there():
    assert max(factors("cosine", warmup=100)) < 0.2


def test_the_scheduler_sets_the_rate_of_the_step_to_come():
    config = OptimConfig(lr=0.2, warmup_steps=4, decay="linear")
    optimizer = build_optimizer(nn.Linear(2, 2), config)
    scheduler = build_scheduler(optimizer, config, 12)
    rates = []
    for _ in range(12):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx([0.2 * f for f in factors("linear")[:12]])


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm, self.words = nn.Linear(3, 2), nn.LayerNorm(2), nn.Embedding(5, 3)
        self.tied = nn.Linear(3, 5, bias=False)
        self.tied.weight = self.words.weight
        self.temperature = nn.Parameter(torch.tensor([0.07]))
        self.frozen = nn.Linear(3, 3).requires_grad_(False)


def test_matrices_decay_and_biases_norms_and_the_temperature_do_not():
    model = Model()
    optimizer = build_optimizer(model, OptimConfig(lr=0.1, betas=[0.8, 0.7], weight_decay=0.3))
    name_of = {id(p): n for n, p in model.named_parameters()}
    groups = {g["weight_decay"]: {name_of[id(p)] for p in g["params"]} for g in optimizer.param_groups}
    assert groups == {
        0.3: {"linear.weight", "words.weight"},
        0.0: {"linear.bias", "norm.weight", "norm.bias", "temperature"},
    }
    assert all(g["betas"] == (0.8, 0.7) and g["lr"] == 0.1 for g in optimizer.param_groups)
