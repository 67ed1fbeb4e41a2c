"""Optimizer groups and learning-rate schedule."""

from __future__ import annotations

import math

import torch
from torch import nn

from relvlm.config import OptimConfig


def build_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """AdamW; biases, norms and the temperature (fewer than 2 axes) do not decay."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.lr, betas=(config.betas[0], config.betas[1]))


def build_scheduler(
    optimizer: torch.optim.Optimizer, config: OptimConfig, steps: int
) -> torch.optim.lr_scheduler.LambdaLR:
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: lr_factor(step, config, steps))


def lr_factor(step: int, config: OptimConfig, steps: int) -> float:
    """Fraction of the peak rate at a step: linear warm-up from 0, then the decay to `final_lr` at `steps`."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    done = min((step - config.warmup_steps) / max(steps - config.warmup_steps, 1), 1.0)
    floor = config.final_lr / config.lr
    left = {"constant": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}[config.decay]
    return floor + (1 - floor) * left
