"""Traffic estimates against DeepSpeed's own comms log of two processes."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

from relvlm.config.schema import ModelConfig
from relvlm.plan.flops import Sizes
from relvlm.plan.traffic import collectives, contrast, on_the_wire
from relvlm.plan.workload import Workload

CASES = [(0, 1), (1, 1), (1, 3), (2, 3), (3, 1), (3, 3)]  # stage and chunks; ZeRO 3 changes modules for good: last
SCRIPT = """
import json, sys
import torch, deepspeed
from relvlm.stopping import leave
from deepspeed.comm.comm import comms_logger
deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
deepspeed.init_distributed("gloo", verbose=False)
def step(engine, chunks):
    if chunks > 1:
        with torch.no_grad():
            engine(torch.randn(2, 400))
    for chunk in range(chunks):
        engine.set_gradient_accumulation_boundary(chunk == chunks - 1)
        engine.backward(engine(torch.randn(2, 400)).sum())
    engine.step()
for stage, chunks in json.loads(sys.argv[-1]):
    model = torch.nn.Sequential(*(torch.nn.Linear(400, 400) for _ in range(3)))
    optimizer = torch.optim.AdamW(model.parameters())
    settings = {"train_micro_batch_size_per_gpu": 2, "zero_optimization": {"stage": stage}}
    settings["gradient_accumulation_steps"] = chunks
    settings["comms_logger"] = {"enabled": True, "verbose": False, "prof_all": True, "debug": False}
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=settings)
    step(engine, chunks)
    comms_logger.comms_dict.clear()
    step(engine, chunks)
    sizes = {op: sum(size * calls[0] for size, calls in log.items()) for op, log in comms_logger.comms_dict.items()}
    if torch.distributed.get_rank() == 0:
        parameters = sum(getattr(p, "ds_numel", p.numel()) for p in model.parameters())
        print("LOG", json.dumps([stage, chunks, parameters, sizes]), flush=True)
torch.distributed.barrier()
leave(0)
"""
NAMES = {"all_gather_into_tensor": "all_gather", "reduce_scatter_tensor": "reduce_scatter"}


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int, int], tuple[int, dict[str, int]]]:
    """By case the number of parameters, and the log of one step, small messages (flags, norms) left out."""
    script = tmp_path_factory.mktemp("traffic") / "step.py"
    script.write_text(SCRIPT)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
    command = [*torchrun, str(script), json.dumps(CASES)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    found = {}
    for line in (line for line in done.stdout.splitlines() if "LOG " in line):
        stage, chunks, parameters, sizes = json.loads(line.split("LOG ")[1])
        large = {NAMES.get(name, name): size for name, size in sizes.items() if size > 1000}
        found[stage, chunks] = (parameters, large)
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "chunks"), CASES)
def test_bytes_equal_those_that_deepspeed_logs(stage: int, chunks: int, logged: Any) -> None:
    parameters, sizes = logged[stage, chunks]
    expected = collectives(parameters, stage, gpus=2, element=4, chunks=chunks)
    assert sizes.keys() == expected.keys()
    for name, size in expected.items():
        assert sizes[name] == pytest.approx(size, rel=0.01)


def test_a_ring_sends_twice_the_share_of_the_others() -> None:
    assert on_the_wire({"all_reduce": 800.0}, 4) == 1200
    assert on_the_wire({"reduce_scatter": 800.0, "all_gather": 200.0}, 4) == 1200
    assert collectives(10**6, 1, gpus=1, element=2) == {}


@pytest.mark.parametrize(
    ("stage", "chunks", "expected"),
    [
        (0, 3, {"all_reduce": 800}),
        (1, 3, {"all_reduce": 800, "all_gather": 200}),
        (2, 1, {"all_reduce": 800, "all_gather": 200}),
        (2, 3, {"all_reduce": 2400, "all_gather": 200}),
        (3, 1, {"reduce_scatter": 800, "all_gather": 200}),
        (3, 3, {"reduce_scatter": 2400, "all_gather": 1400}),  # before, and for each chunk twice
    ],
)
def test_weights_and_gradients_worked_out_by_hand(stage: int, chunks: int, expected: dict[str, int]) -> None:
    """400 parameters of 2 bytes on 4 GPUs."""
    assert collectives(400, stage, gpus=4, element=2, chunks=chunks) == expected


def test_features_are_gathered_with_three_keys_for_each_group() -> None:
    sizes, work = Sizes(ModelConfig(embed_dim=32)), Workload("entities", 5, 4, 4, 36, masked=1, boxes=4)
    assert contrast(sizes, work, 2) == {"all_gather": 5 * 4 * (2 * 32 * 4 + 3 * 8)}
    assert contrast(sizes, work, 1) == contrast(sizes, replace(work, kind="mrc"), 2) == {}
