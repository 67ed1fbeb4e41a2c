"""The DeepSpeed configs: gradients travel during the backward pass, and change nothing of what is trained."""

import os
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
from torch import Tensor, nn

from relvlm.config.schema import Config, OptimConfig
from relvlm.engine import distributed
from relvlm.ranks import rank, stop

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "deepspeed"
STAGES = (1, 2, 3)
RUNS = ((1, "bf16"), (2, "bf16"), (3, "bf16"), (1, "fp32"))
STEPS, WIDTH = 10, 48
SMALL = {"reduce_bucket_size": 3000, "allgather_bucket_size": 3000}  # elements: a layer has 2,352


class Layers(nn.Module):
    """Its forward is the loss, of some rows that it is to reproduce."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.GELU()) for _ in range(6)))

    def forward(self, rows: Tensor) -> Tensor:
        rows = rows.to(next(self.parameters()).dtype)
        return (self.layers(rows) - rows).float().square().mean()


def losses(settings: dict[str, Any], dtype: str) -> list[float]:
    """Of this rank, whose rows are its own."""
    torch.manual_seed(0)
    model, config = Layers(), Config(dtype=dtype, optim=OptimConfig(clip_norm=1.0))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    engine = distributed.initialize(model, optimizer, None, config, settings)
    generator, found = torch.Generator().manual_seed(rank()), []
    for _ in range(STEPS):
        loss = engine(torch.randn(8, WIDTH, generator=generator))
        engine.backward(loss)
        engine.step()
        found.append(loss.item())
    return found


def settings_of(stage: int) -> dict[str, dict[str, Any]]:
    """The config as it is, with buckets so small that several travel in a backward, and without overlap."""
    ours = distributed.read_deepspeed_config(CONFIGS / f"zero{stage}.json")["zero_optimization"]
    several = ours | {name: size for name, size in SMALL.items() if name in ours}
    chosen = {"config": ours, "several buckets": several, "plain": {"stage": stage, "overlap_comm": False}}
    return {name: {"zero_optimization": settings} for name, settings in chosen.items()}


def _worker(place: int, port: int, folder: Path) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= {
        "RANK": str(place),
        "LOCAL_RANK": str(place),
        "WORLD_SIZE": "2",
        "CUDA_VISIBLE_DEVICES": "",
    }
    distributed.start(threads=1)
    found = {
        (stage, dtype, name): losses(settings, dtype)
        for stage, dtype in RUNS for name, settings in settings_of(stage).items()
    }  # fmt: skip
    torch.save(found, folder / f"{place}.pt")
    stop()


@pytest.mark.slow
def test_overlapping_communication_leaves_every_loss_as_it_is(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.spawn(_worker, (port, tmp_path), nprocs=2)
    for found in (torch.load(tmp_path / f"{place}.pt", weights_only=False) for place in range(2)):
        for (stage, dtype, name), values in found.items():
            assert values == found[stage, dtype, "plain"], (stage, dtype, name)
            assert values[-1] < 0.97 * values[0]


@pytest.mark.parametrize("stage", STAGES)
def test_gradients_overlap_in_buckets_that_are_a_part_of_the_model(stage: int) -> None:
    """A bucket as large as all parameters would wait for the last of them."""
    settings = distributed.read_deepspeed_config(CONFIGS / f"zero{stage}.json")["zero_optimization"]
    assert settings["stage"] == stage and settings["overlap_comm"]
    assert settings["reduce_bucket_size"] < 218e6 / 4  # of the recipe's parameters
