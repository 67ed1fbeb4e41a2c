"""One update by DeepSpeed's engine: forward and backward of each chunk, or none on any rank."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from relvlm.data.batches.batch import Batch
from relvlm.pretraining.chunks import chunks_of


def train_step(
    engine: Any, chunks: list[Batch], at: Callable[[str], None] = lambda phase: None
) -> tuple[dict[str, torch.Tensor], bool]:
    """Forward and backward of each chunk, and one update; all ranks skip it where a loss or gradient is not finite.

    Returns the objectives' values, and whether there was an update. `at` is told each phase that begins.
    """
    totals: list[torch.Tensor] = []
    found: list[dict[str, torch.Tensor]] = []
    for batch, chunk in zip(chunks, chunks_of(chunks), strict=True):
        at("forward")
        total, values = engine(batch, of=chunk)
        totals.append(total.detach())
        found.append(values)
        last = len(found) == len(chunks)
        if last:  # what is accumulated cannot be taken back, but NaN spreads over all of it and to every rank
            total = total * torch.where(torch.stack(totals).isfinite().all(), 1.0, float("nan"))
        at("backward")
        engine.set_gradient_accumulation_boundary(last)
        engine.backward(total * engine.gradient_accumulation_steps())  # by which it divides
    at("update")
    values = {name: torch.stack([part[name] for part in found]).sum(0) for name in found[0]}
    if engine.zero_optimization_stage() == 0 and not _finite_gradients(engine.module):
        engine.zero_grad()
        return values, False
    skipped = engine.skipped_steps  # ZeRO 1-3 look at the gradients themselves
    engine.step()
    return values, engine.skipped_steps == skipped


def _finite_gradients(module: torch.nn.Module) -> bool:
    """Of gradients that are already averaged over ranks, so that all find the same (one host sync)."""
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    return bool(torch.nn.utils.get_total_norm(gradients).isfinite())
