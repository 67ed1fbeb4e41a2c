"""Learning rate at every stage of a run, and which parameters decay."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from relvlm.config.schema import OptimConfig
from relvlm.engine.schedule import build_optimizer, build_scheduler, keep_settings, lr_factor, settings_of


def factors(decay: str, final_lr: float = 0.0, warmup: int = 4, steps: int = 12) -> list[float]:
    config = OptimConfig(lr=0.2, warmup_steps=warmup, decay=decay, final_lr=final_lr)
    return [lr_factor(step, config, steps) for step in range(steps + 3)]


@pytest.mark.parametrize("decay", ["cosine", "linear", "constant"])
def test_warm_up_rises_linearly_to_the_peak(decay):
    assert factors(decay)[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]


def test_linear_decay_reaches_the_final_rate_at_the_last_step_and_stays():
    assert factors("linear", final_lr=0.02)[4:] == pytest.approx([1 - 0.9 * i / 8 for i in range(9)] + [0.1, 0.1])


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


def test_warm_up_may_start_above_zero():
    config = OptimConfig(lr=1e-4, warmup_lr=1e-5, warmup_steps=9, decay="constant")
    rates = [1e-4 * lr_factor(step, config, 20) for step in range(10)]
    assert rates == pytest.approx([1e-5 * (i + 2) for i in range(9)] + [1e-4])


class Parts(nn.Module):
    """Names as in our models."""

    def __init__(self) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.tensor([0.07]))
        self.relative_position_bias = nn.Parameter(torch.zeros(9, 2))
        self.norm1 = nn.LayerNorm(2)
        self.itm_head = nn.Sequential(nn.Linear(2, 4), nn.LayerNorm(4))
        self.cross_attention = nn.ModuleDict({"cross_attention": nn.Linear(2, 2)})


@pytest.mark.parametrize(
    ("rule", "decaying"),
    [
        ("matrices", {"relative_position_bias"}),
        ("albef", {"relative_position_bias", "temperature"}),
        ("xvlm", {"temperature", "itm_head.1.weight"}),
    ],
)
def test_what_decays_by_each_rule(rule, decaying):
    model = Parts()
    optimizer = build_optimizer(model, OptimConfig(weight_decay=0.3, decay_rule=rule))
    name_of = {id(p): n for n, p in model.named_parameters()}
    found = {name_of[id(p)] for g in optimizer.param_groups if g["weight_decay"] for p in g["params"]}
    matrices = {"itm_head.0.weight", "cross_attention.cross_attention.weight"}
    assert found == decaying | matrices


def test_new_parameters_learn_faster_all_along_the_schedule():
    model, config = Parts(), OptimConfig(lr=0.2, new_lr_factor=2.0, warmup_steps=4, decay="linear")
    optimizer = build_optimizer(model, config)
    scheduler = build_scheduler(optimizer, config, 12)
    name_of = {id(p): n for n, p in model.named_parameters()}
    for step in range(12):
        rate_of = {name_of[id(p)]: g["lr"] for g in optimizer.param_groups for p in g["params"]}
        expected = 0.2 * factors("linear")[step]
        assert rate_of["norm1.weight"] == rate_of["relative_position_bias"] == pytest.approx(expected)
        for name in ("temperature", "itm_head.1.bias", "cross_attention.cross_attention.weight"):
            assert rate_of[name] == pytest.approx(2 * expected)
        optimizer.step()
        scheduler.step()


def after_seven_steps(config: OptimConfig, steps: int = 12) -> tuple[torch.optim.AdamW, LambdaLR]:
    optimizer = build_optimizer(Parts(), config)
    scheduler = build_scheduler(optimizer, config, steps)
    for _ in range(7):
        optimizer.step()
        scheduler.step()
    return optimizer, scheduler


def loaded(config: OptimConfig, saved: tuple[torch.optim.AdamW, LambdaLR], steps: int = 12):
    """An optimizer and a scheduler of `config` that go on from saved ones."""
    optimizer = build_optimizer(Parts(), config)
    scheduler = build_scheduler(optimizer, config, steps)
    settings = settings_of(optimizer)
    optimizer.load_state_dict(saved[0].state_dict())
    scheduler.load_state_dict(saved[1].state_dict())
    keep_settings(optimizer, scheduler, settings)
    return optimizer, scheduler


def groups(optimizer: torch.optim.AdamW) -> list[dict]:
    return [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]


SAVED = OptimConfig(lr=0.2, new_lr_factor=2.0, warmup_steps=4, decay="cosine")


def test_a_loaded_optimizer_of_the_same_settings_stays_as_it_is():
    saved = after_seven_steps(SAVED)
    optimizer, scheduler = loaded(SAVED, saved)
    assert groups(optimizer) == groups(saved[0]) and scheduler.state_dict() == saved[1].state_dict()


@pytest.mark.parametrize(
    "changes",
    [
        {"lr": 0.3},
        {"decay": "linear"},
        {"final_lr": 0.1},
        {"weight_decay": 0.5, "betas": [0.5, 0.6]},
        {"warmup_steps": 9},
    ],
)
def test_a_loaded_optimizer_goes_on_with_the_settings_of_the_config(changes):
    config = replace(SAVED, **changes)
    (optimizer, scheduler), (like, _) = loaded(config, after_seven_steps(SAVED)), after_seven_steps(config)
    assert groups(optimizer) == groups(like) != groups(after_seven_steps(SAVED)[0])
    optimizer.step()
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(config.lr * lr_factor(8, config, 12))


def test_a_run_that_is_made_longer_decays_to_its_new_end():
    optimizer, _ = loaded(SAVED, after_seven_steps(SAVED), steps=100)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.2 * lr_factor(7, SAVED, 100))
