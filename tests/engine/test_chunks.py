"""A step in chunks under DeepSpeed, at every ZeRO stage: what plain PyTorch does with the same chunks."""

import pytest
import torch
from batches import made_batch

from relvlm.config import Config, FusionConfig, ModelConfig, OptimConfig, TextConfig, VisionConfig
from relvlm.data.batch import Batch
from relvlm.engine import checkpoint, distributed
from relvlm.engine.loop import train_step
from relvlm.model import RelVLM
from relvlm.plan.workload import Workload

MODEL = ModelConfig(
    image_size=32,
    embed_dim=16,
    vision=VisionConfig(width=32, layers=2, heads=2, patch_size=8),
    text=TextConfig(layers=2, heads=2, width=32, max_positions=16, dropout=0.1),
    fusion=FusionConfig(layers=2, heads=2),
    mrc_hidden=24,
)
WORKS = [
    Workload("captions", 3, 1, 5, 8, masked=2),
    Workload("mrc", 2, 3, 4, 8, relations=2),
    Workload("entities", 2, 3, 4, 8, masked=1, boxes=3),
]
RATE, CLIP, CHUNKS = 0.1, 0.5, 3

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="the model stays on the CPU")


def steps() -> list[list[Batch]]:
    return [[made_batch(work, 32, 4, 50, 7, seed) for seed in range(CHUNKS)] for work in WORKS]


def made_model() -> RelVLM:
    torch.manual_seed(0)
    return RelVLM(MODEL, 50, 7)


def made_engine(stage: int, dtype: str = "fp32"):
    config = Config(accumulate=CHUNKS, dtype=dtype, optim=OptimConfig(clip_norm=CLIP))
    model = made_model()
    settings = {"zero_optimization": {"stage": stage, "stage3_param_persistence_threshold": 0}}
    optimizer = torch.optim.SGD(model.parameters(), RATE)
    return distributed.initialize(model, optimizer, None, config, settings)


def plain_steps() -> tuple[dict[str, torch.Tensor], list[dict[str, torch.Tensor]]]:
    """Tensors after the steps, and the sums of each step's values."""
    model, sums = made_model(), []
    for seed, chunks in enumerate(steps()):
        torch.manual_seed(seed)
        model.zero_grad()
        found = []
        for chunk, part in zip(chunks, model(chunks), strict=True):
            total, values = model(chunk, part=part)
            total.backward()
            found.append(values)
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= RATE * parameter.grad
        sums.append({name: sum(values[name] for values in found) for name in found[0]})
    tensors = {
        name: x.detach() for name, x in model.state_dict().items() if name != "mlm_head.decoder.weight"
    }
    return tensors, sums


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_every_zero_stage_updates_as_plain_pytorch_does(stage, process_group):
    engine, (expected, sums) = made_engine(stage), plain_steps()
    for seed, (chunks, values) in enumerate(zip(steps(), sums, strict=True)):
        torch.manual_seed(seed)
        found, stepped = train_step(engine, chunks)
        assert stepped and found.keys() == values.keys()
        for name in values:
            torch.testing.assert_close(found[name], values[name], rtol=1e-5, atol=1e-5)
    tensors = checkpoint.full_tensors(engine)
    assert tensors.keys() == expected.keys()
    for name, tensor in tensors.items():
        torch.testing.assert_close(
            tensor, expected[name], rtol=1e-5, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_bf16_follows_fp32(stage, process_group):
    engine, (_, sums) = made_engine(stage, "bf16"), plain_steps()
    for seed, (chunks, values) in enumerate(zip(steps(), sums, strict=True)):
        torch.manual_seed(seed)
        found, stepped = train_step(engine, chunks)
        assert stepped
        for name in (name for name in values if "accuracy" not in name):
            assert found[name].item() == pytest.approx(values[name].item(), rel=0.05), name
