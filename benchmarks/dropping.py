"""Our step on a share of the patches (model.vision.patch_keep) beside our step on all: *not exact*, other losses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from relvlm.data.batches.batch import Batch
from relvlm.plan.flops import TRAINING, Sizes, packed
from relvlm.plan.workload import Workload
from relvlm.pretraining.step import Pretraining


def loss(step: Pretraining, batch: Batch, keep: float) -> Tensor:
    """That of a step that keeps this share of the patches."""
    vision = step.model.vision
    whole = vision.config
    vision.config = replace(whole, patch_keep=keep)
    total = step(batch).total
    vision.config = whole
    return total


def summary(sizes: Sizes, works: list[Workload], keep: float, seconds: float, kept_bytes: int) -> dict[str, Any]:
    """What was measured, with the FLOPs of such a step."""
    vision = replace(sizes.model.vision, patch_keep=keep)
    fewer = replace(sizes, model=replace(sizes.model, vision=vision))
    return {
        "patch_keep": keep,
        "seconds": seconds,
        "kept_bytes": kept_bytes,
        "flops": TRAINING * sum(sum(packed(fewer, work).values()) for work in works),
    }


def print_table(rows: list[dict[str, Any]]) -> None:
    """A line for each row of train_step.py with a summary in `not_exact`."""
    if rows:
        print("\n| ours, not exact | s | s, all patches | time | FLOPs | kept memory |")
        print("|---|---:|---:|---:|---:|---:|")
    for row in rows:
        fewer = row["not_exact"]
        print(
            f"| {row['size']} {row['kind']}, patch_keep {fewer['patch_keep']:g} | {fewer['seconds']:.3f} "
            f"| {row['seconds']:.3f} | {row['seconds'] / fewer['seconds']:.2f}x "
            f"| {row['flops'] / fewer['flops']:.2f}x | {fewer['kept_bytes'] / row['kept_bytes']:.0%} |"
        )
