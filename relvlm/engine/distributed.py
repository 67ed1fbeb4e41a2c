"""Processes, rendezvous and DeepSpeed: the only place that knows of them."""

from __future__ import annotations

import json
import logging
import os
import subprocess
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from relvlm.config import Config
from relvlm.errors import UserError

TIMEOUT = timedelta(minutes=10)  # a rank that waits longer for another ends the run
OURS = {"optimizer", "scheduler", "train_batch_size", "train_micro_batch_size_per_gpu", "gradient_clipping"}
OURS |= {"bf16", "fp16"}


def read_deepspeed_config(path: Path | None) -> dict[str, Any]:
    """DeepSpeed's JSON, ZeRO stage 1 where none is given; UserError where it sets what our YAML decides."""
    if path is None:
        return {"zero_optimization": {"stage": 1}}
    try:
        settings = json.loads(path.read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise UserError(f"{path}: no readable DeepSpeed config: {error}") from error
    for key in sorted(OURS & settings.keys()):
        raise UserError(
            f"{path}: {key}: is decided by the relvlm config (optim, data.batch, dtype); remove it"
        )
    if settings.get("gradient_accumulation_steps", 1) != 1:
        raise UserError(f"{path}: gradient_accumulation_steps: only 1 is supported")
    return settings


def rendezvous() -> None:
    """Set RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT from whatever launcher started this.

    torchrun and the deepspeed launcher set them; under srun (and submitit) they follow from SLURM_*; a process
    started by hand is a world of one.
    """
    if {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys():
        os.environ.setdefault("LOCAL_RANK", "0")
    elif "SLURM_STEP_NUM_TASKS" in os.environ and "SLURM_PROCID" in os.environ:
        # SLURM_NTASKS is also set in the batch script itself, where nobody else would come to the rendezvous
        os.environ |= slurm_environment(dict(os.environ))
    else:
        os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}


def slurm_environment(slurm: dict[str, str]) -> dict[str, str]:
    """torch.distributed's variables of one srun task; the port follows from the job, so jobs share a node."""
    nodes = slurm.get("SLURM_STEP_NODELIST", slurm["SLURM_JOB_NODELIST"])
    listed = subprocess.run(
        ["scontrol", "show", "hostnames", nodes], capture_output=True, text=True, check=True
    )
    step = int(slurm["SLURM_JOB_ID"]) * 7 + int(slurm.get("SLURM_STEP_ID", "0"))
    return {
        "RANK": slurm["SLURM_PROCID"],
        "LOCAL_RANK": slurm["SLURM_LOCALID"],
        "WORLD_SIZE": slurm["SLURM_STEP_NUM_TASKS"],
        "MASTER_ADDR": listed.stdout.split()[0],
        "MASTER_PORT": str(20000 + step % 20000),
    }


def start(threads: int) -> torch.device:
    """Join the process group (gloo or nccl) and return this rank's device."""
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
    backend = "nccl" if device.type == "cuda" else "gloo"
    deepspeed.init_distributed(dist_backend=backend, timeout=TIMEOUT, verbose=False)
    return device


def stop() -> None:
    """Leave the process group together: a bare destroy aborts now and then."""
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def barrier() -> None:
    if world_size() > 1:
        dist.barrier()


def all_agree(flag: Tensor) -> bool:
    """Whether a 0-dim bool is true on every rank (one host sync)."""
    verdict = flag.to(torch.int32)
    if world_size() > 1:
        dist.all_reduce(verdict, op=dist.ReduceOp.MIN)
    return bool(verdict)


def mean_over_ranks(values: Tensor) -> Tensor:
    if world_size() > 1:
        dist.all_reduce(values)
    return values / world_size()


def gather_rows(x: Tensor) -> tuple[Tensor, int]:
    """Rows of all ranks (A, ...), with gradient, and the index of the first own one; ranks may differ in rows."""
    if world_size() == 1:
        return x, 0
    counts = torch.zeros(world_size(), dtype=torch.int64, device=x.device)
    counts[rank()] = len(x)
    dist.all_reduce(counts)
    sizes = counts.tolist()
    longest = max(sizes)
    padded = torch.cat([x, x.new_zeros(longest - len(x), *x.shape[1:])])
    blocks = _AllGather.apply(padded) if x.requires_grad else _all_gather(padded)
    rows = torch.cat([block[:size] for block, size in zip(blocks.split(longest), sizes, strict=True)])
    return rows, sum(sizes[: rank()])


class _AllGather(torch.autograd.Function):
    """Concatenation over ranks; a row's gradient is the sum of what every rank's loss says of it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _all_gather(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        grad = grad.contiguous()
        dist.all_reduce(grad)  # gloo has no reduce_scatter
        return grad.chunk(world_size())[rank()]


def _all_gather(x: Tensor) -> Tensor:
    blocks = [torch.empty_like(x) for _ in range(world_size())]
    dist.all_gather(blocks, x.contiguous())
    return torch.cat(blocks)


def initialize(model: torch.nn.Module, optimizer: Any, scheduler: Any, config: Config, settings: dict) -> Any:
    """DeepSpeed's engine around the model; our loader decides the batches, so its own sizes are 1."""
    import deepspeed

    settings = settings | {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_clipping": config.optim.clip_norm,
        "bf16": {"enabled": config.dtype == "bf16"},
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 10**9,
    }
    engine, *_ = deepspeed.initialize(
        model=model, optimizer=optimizer, lr_scheduler=scheduler, config=settings, dist_init_required=False
    )
    return engine


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
