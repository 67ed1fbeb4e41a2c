"""One update by DeepSpeed's engine: forward and backward of each chunk, or none on any rank."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from relvlm.data.batches.batch import Batch
from relvlm.engine.clock import Clock
from relvlm.pretraining.chunks import chunks_of


class Update(NamedTuple):
    """The objectives' values, whether there was an update, and the gradient's norm over all ranks before clipping.

    The norm is on the device yet; not finite, or -1, where DeepSpeed found a gradient that is not. None where
    DeepSpeed computes none.
    """

    values: dict[str, torch.Tensor]
    stepped: bool
    grad_norm: torch.Tensor | float | None


def train_step(
    engine: Any, chunks: list[Batch], clock: Clock | None = None, at: Callable[[str], None] = lambda phase: None
) -> Update:
    """Forward and backward of each chunk, and one update; all ranks skip it where a loss or gradient is not finite.

    The clock, where there is one, and `at` are told each phase.
    """
    clock = clock or Clock(torch.device("cpu"))
    totals: list[torch.Tensor] = []
    found: list[dict[str, torch.Tensor]] = []
    for batch, chunk in zip(chunks, chunks_of(chunks), strict=True):
        at("forward")
        with clock.phase("forward"):
            total, values = engine(batch, of=chunk)
        totals.append(total.detach())
        found.append(values)
        last = len(found) == len(chunks)
        if last:  # what is accumulated cannot be taken back, but NaN spreads over all of it and to every rank
            total = total * torch.where(torch.stack(totals).isfinite().all(), 1.0, float("nan"))
        at("backward")
        engine.set_gradient_accumulation_boundary(last)
        with clock.phase("backward"):
            engine.backward(total * engine.gradient_accumulation_steps())  # by which it divides
    at("update")
    values = {name: torch.stack([part[name] for part in found]).sum(0) for name in found[0]}
    with clock.phase("optimizer"):
        return Update(values, *_update(engine))


def _update(engine: Any) -> tuple[bool, torch.Tensor | float | None]:
    """Whether there was one, and the gradient's norm."""
    norm = None
    if engine.zero_optimization_stage() == 0:
        norm = _norm(engine.module)
        if not norm.isfinite():  # averaged over ranks already, so that all find the same (one host sync)
            engine.zero_grad()
            return False, norm
        if engine.gradient_clipping() and not engine.bfloat16_enabled():
            torch.nn.utils.clip_grads_with_norm_(engine.module.parameters(), engine.gradient_clipping(), norm)
    skipped = engine.skipped_steps  # ZeRO 1-3 look at the gradients themselves
    engine.step()
    return engine.skipped_steps == skipped, getattr(engine.optimizer, "_global_grad_norm", norm)


def _norm(module: torch.nn.Module) -> torch.Tensor:
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    return torch.nn.utils.get_total_norm(gradients)
