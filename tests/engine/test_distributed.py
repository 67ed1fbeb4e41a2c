"""The DeepSpeed config: what it may say, and the default."""

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from relvlm.config.schema import Config
from relvlm.engine import distributed
from relvlm.errors import UserError


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "no readable DeepSpeed config"),
        ("[]", "no DeepSpeed config: expected sections"),
        ('{"zero_optimization": 1}', "no DeepSpeed config: expected sections"),
        ('{"zero_optimization": {"stage": 4}}', "zero_optimization.stage: 4 is none of 0, 1, 2, 3"),
        ('{"zero_optimization": {"stage": true}}', "zero_optimization.stage: True is none of"),
        ('{"a": 1, "a": 2}', "no readable DeepSpeed config: 'a' is given twice"),
        ('{"bf16": {"enabled": true}}', "bf16: is decided by the relvlm config"),
        ('{"bfloat16": {"enabled": true}}', "bfloat16: is decided by the relvlm config"),
        ('{"torch_autocast": {"enabled": true}}', "torch_autocast: is decided by the relvlm config"),
        ('{"gradient_allreduce_op": "sum"}', "gradient_allreduce_op: is decided by the relvlm config"),
        ('{"optimizer": {}}', "optimizer: is decided by the relvlm config"),
        (
            '{"gradient_accumulation_steps": 4}',
            "gradient_accumulation_steps: is decided by the relvlm config",
        ),
    ],
)
def test_a_deepspeed_config_that_contradicts_ours_is_refused(tmp_path, text, message):
    path = tmp_path / "deepspeed.json"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        distributed.read_deepspeed_config(path)
    assert str(caught.value).startswith(f"{path}: {message}")


def test_the_deepspeed_config_may_be_left_out():
    zero1 = Path(__file__).parents[2] / "configs/deepspeed/zero1.json"
    assert distributed.read_deepspeed_config(None) == distributed.read_deepspeed_config(zero1)


def test_a_deepspeed_config_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "deepspeed.json").write_bytes(b"\xff\xfe\x00")
    for name in ("deepspeed.json", "gone.json", "."):
        with pytest.raises(UserError, match="no readable DeepSpeed config"):
            distributed.read_deepspeed_config(tmp_path / name)


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
def test_the_engine_is_told_what_our_config_decides(monkeypatch, dtype):
    engine = SimpleNamespace(zero_optimization_stage=lambda: 0)
    monkeypatch.setitem(
        sys.modules, "deepspeed", SimpleNamespace(initialize=lambda **of: (vars(engine).update(of) or engine, 0))
    )
    config = Config(dtype=dtype, accumulate=3)
    told = distributed.initialize(torch.nn.Linear(1, 1), "optimizer", "scheduler", config, {"wall_clock": True})
    assert told.config == {
        "wall_clock": True, "train_micro_batch_size_per_gpu": 1, "gradient_accumulation_steps": 3,
        "gradient_clipping": config.optim.clip_norm, "bf16": {"enabled": dtype == "bf16"},
        "zero_allow_untested_optimizer": True, "steps_per_print": 10**9,
    }  # fmt: skip
    alone = dtype == "fp32"  # one rank without ZeRO neither sums nor has DeepSpeed clip
    assert hasattr(told, "clip_fp32_gradients") == alone and getattr(told, "enable_backward_allreduce", True) != alone


@pytest.mark.parametrize(("cuda", "device", "backend"), [(True, "cuda:5", "nccl"), (False, "cpu", "gloo")])
@pytest.mark.parametrize("threads", [0, 7])
def test_a_rank_takes_its_device_and_the_threads_asked_for(monkeypatch, cuda, device, backend, threads):
    joined, set_threads = {}, []
    ops = SimpleNamespace(__compatible_ops__={})
    fake = SimpleNamespace(ops=ops, init_distributed=lambda **of: joined.update(of))
    monkeypatch.setitem(sys.modules, "deepspeed", fake)
    monkeypatch.setenv("LOCAL_RANK", "5")
    monkeypatch.setenv("DS_ACCELERATOR", "")
    monkeypatch.delenv("DS_ACCELERATOR")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(torch, "set_num_threads", set_threads.append)
    for name in ("rendezvous", "keep_freed_memory"):
        monkeypatch.setattr(distributed, name, lambda: None)
    assert distributed.start(threads) == torch.device(device)
    assert joined["dist_backend"] == backend and os.environ["DS_ACCELERATOR"] == torch.device(device).type
    assert set_threads == ([7] if threads else [])


@pytest.mark.parametrize(("ranks", "dtype", "stage"), [(1, "fp32", 0), (1, "bf16", 1), (2, "fp32", 1)])
def test_a_rank_alone_shares_nothing_where_nobody_says_how(ranks, dtype, stage, monkeypatch):
    monkeypatch.setattr(distributed, "world_size", lambda: ranks)
    settings = distributed.default_settings(Config(dtype=dtype))
    assert settings["zero_optimization"] == {**distributed.DEFAULT_ZERO, "stage": stage}
    assert distributed.DEFAULT_ZERO["stage"] == 1
