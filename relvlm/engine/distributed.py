"""DeepSpeed: its config, its start, its engine around a step of pretraining."""

from __future__ import annotations

import json
import logging
import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from relvlm.config.schema import Config
from relvlm.errors import UserError
from relvlm.ranks import TIMEOUT, world_size
from relvlm.rendezvous import rendezvous
from relvlm_kernels.malloc import keep_freed_memory

OURS = {"optimizer", "scheduler", "train_batch_size", "train_micro_batch_size_per_gpu", "gradient_clipping"}
OURS |= {"bf16", "bfloat16", "fp16", "amp", "torch_autocast", "gradient_accumulation_steps", "gradient_allreduce_op"}

# As in configs/deepspeed/zero1.json: gradients travel during the backward pass, in buckets of so many elements.
DEFAULT_ZERO = {
    "stage": 1, "overlap_comm": True, "reduce_bucket_size": 50_000_000, "allgather_bucket_size": 50_000_000
}  # fmt: skip


def read_deepspeed_config(path: Path | None) -> dict[str, Any]:
    """DeepSpeed's JSON, ZeRO stage 1 where none is given; UserError where it sets what our YAML decides."""
    if path is None:
        return {"zero_optimization": dict(DEFAULT_ZERO)}
    try:
        settings = json.loads(path.read_bytes(), object_pairs_hook=_unique)
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: no readable DeepSpeed config: {error}") from error
    zero = settings.get("zero_optimization", {}) if isinstance(settings, dict) else None
    if not isinstance(zero, dict):
        raise UserError(f"{path}: no DeepSpeed config: expected sections ({{...}})")
    stage = zero.get("stage", 0)
    if isinstance(stage, bool) or stage not in range(4):
        raise UserError(f"{path}: zero_optimization.stage: {stage!r} is none of 0, 1, 2, 3")
    for key in sorted(OURS & settings.keys()):
        raise UserError(
            f"{path}: {key}: is decided by the relvlm config (optim, data.batch, dtype, accumulate); remove it"
        )
    return settings


def check_stage(config: Config, settings: dict[str, Any]) -> None:
    """UserError where the config needs whole parameters and ZeRO shards them."""
    stage = settings.get("zero_optimization", {}).get("stage")
    if config.model.momentum.enabled and stage == 3:
        raise UserError("model.momentum.enabled: needs whole parameters on every rank (take ZeRO stage 0-2)")
    if config.model.compile and stage == 3:
        raise UserError("model.compile: needs whole parameters in every layer (take ZeRO stage 0-2)")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object without a key that is there twice, of which json would keep the last."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for key in found if [other for other, _ in pairs].count(key) > 1)
        raise ValueError(f"{twice!r} is given twice")
    return found


def default_settings(config: Config) -> dict[str, Any]:
    """Where no DeepSpeed config is given: a rank alone has nothing to share, and ZeRO's copies cost it a tenth."""
    stage = 0 if world_size() == 1 and config.dtype == "fp32" else DEFAULT_ZERO["stage"]
    return {"zero_optimization": DEFAULT_ZERO | {"stage": stage}}


def start(threads: int, timeout: timedelta = TIMEOUT) -> torch.device:
    """Join the process group (gloo or nccl), where nobody waits longer than `timeout`; returns this rank's device."""
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if torch.cuda.is_available() else "cpu")
    import deepspeed

    # Its first init on CPU would compile a shared-memory collective that only inference uses (24-105 s).
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    if threads:
        torch.set_num_threads(threads)
    rendezvous()
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    else:
        keep_freed_memory()
    backend = "nccl" if device.type == "cuda" else "gloo"
    deepspeed.init_distributed(dist_backend=backend, timeout=timeout, verbose=False)
    return device


def collective_backend() -> Any:
    """What DeepSpeed's collectives go through; None where it has not been started."""
    module = sys.modules.get("deepspeed.comm.comm")
    return module and module.cdb


def initialize(model: torch.nn.Module, optimizer: Any, scheduler: Any, config: Config, settings: dict) -> Any:
    """DeepSpeed's engine around the model; our loader decides the batches, so its own sizes are 1."""
    import deepspeed

    settings = settings | {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": config.accumulate,
        "gradient_clipping": config.optim.clip_norm,
        "bf16": {"enabled": config.dtype == "bf16"},
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 10**9,
    }
    engine, *_ = deepspeed.initialize(
        model=model, optimizer=optimizer, lr_scheduler=scheduler, config=settings, dist_init_required=False
    )
    if hasattr(engine.optimizer, "fp32_groups"):
        _undo_first_step(engine.optimizer)
    if engine.zero_optimization_stage() == 0 and config.dtype == "fp32":
        engine.clip_fp32_gradients = lambda: None  # train_step clips by the norm that it needs anyway
        engine.enable_backward_allreduce = world_size() > 1  # one rank's sum is its own gradient
    return engine


@torch.no_grad()
def _undo_first_step(optimizer: Any) -> None:
    """DeepSpeed's optimizer for bf16 without ZeRO makes AdamW's state by an update on zeros, which decays weights."""
    for parameters, masters in zip(optimizer.fp16_groups, optimizer.fp32_groups, strict=True):
        for parameter, master in zip(parameters, masters, strict=True):
            master.copy_(parameter)
    optimizer.optimizer.state.clear()
