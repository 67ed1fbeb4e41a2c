"""Optimizer groups and learning-rate schedule."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from relvlm.config.schema import OptimConfig

NORMS = ("norm.weight", "norm1.weight", "norm2.weight")
HEADS = ("itm_head.", "box_head.", "mrc_head.", "image_projection.", "text_projection.", "temperature")


def build_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """AdamW with one group for each pair of weight decay and rate that there is (decaying ones first)."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decay = config.weight_decay if decays(name, parameter, config.decay_rule) else 0.0
            rate = config.lr * (config.new_lr_factor if is_new(name) else 1.0)
            groups.setdefault((decay, rate), []).append(parameter)
    settings = [
        {"params": groups[decay, rate], "weight_decay": decay, "lr": rate}
        for decay, rate in sorted(groups, key=lambda group: (-group[0], group[1]))
    ]
    betas = (config.betas[0], config.betas[1])
    return torch.optim.AdamW(settings, lr=config.lr, betas=betas, fused=True)  # one pass over the memory


def decays(name: str, parameter: nn.Parameter, rule: str) -> bool:
    """Whether weight decay applies.

    matrices: to what has 2 axes or more. albef: also to the temperature. xvlm: to what is neither bias nor norm by
    its name: not to Swin's table of position biases, but to the norms within the heads and to the temperature.
    """
    if rule == "xvlm":
        return "bias" not in name and not name.endswith(NORMS)
    return parameter.dim() >= 2 or (rule == "albef" and name == "temperature")


def is_new(name: str) -> bool:
    """Whether no backbone brings weights for this parameter (X-VLM's `init_params`)."""
    return name.startswith(HEADS) or ".cross_attention." in name


def build_scheduler(
    optimizer: torch.optim.Optimizer, config: OptimConfig, steps: int
) -> torch.optim.lr_scheduler.LambdaLR:
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: lr_factor(step, config, steps))


def lr_factor(step: int, config: OptimConfig, steps: int) -> float:
    """Fraction of the peak rate at a step: linear warm-up from `warmup_lr`, then the decay to `final_lr` at `steps`."""
    if step < config.warmup_steps:
        start = config.warmup_lr / config.lr
        return start + (1 - start) * (step + 1) / config.warmup_steps
    done = min((step - config.warmup_steps) / max(steps - config.warmup_steps, 1), 1.0)
    floor = config.final_lr / config.lr
    left = {"constant": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}[config.decay]
    return floor + (1 - floor) * left


def settings_of(optimizer: Any) -> list[dict[str, Any]]:
    """Of each group of a new optimizer, what `keep_settings` puts back."""
    return [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]


def keep_settings(optimizer: Any, scheduler: Any, settings: list[dict[str, Any]]) -> None:
    """After a checkpoint has been loaded: rates, decay and betas are the config's, not the checkpoint's.

    The schedule goes on at its step; where nothing has been changed, neither is anything here.
    """
    scheduler.base_lrs = [group["initial_lr"] for group in settings]
    rates = [
        base * factor(scheduler.last_epoch)
        for base, factor in zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)
    ]
    scheduler._last_lr = rates
    for group, own, rate in zip(optimizer.param_groups, settings, rates, strict=True):
        group |= own | {"lr": rate}
