"""A step under DeepSpeed at every ZeRO stage, whole and in chunks: plain PyTorch's, or none where it is not finite."""

import pytest
import torch
from support.batches import made_batch
from torch import Tensor
from toys import NOISY, toy_pretraining

from relvlm.config.schema import Config, OptimConfig
from relvlm.data.batches.batch import Batch
from relvlm.engine import distributed, run_state
from relvlm.engine.clock import Clock
from relvlm.engine.schedule import build_optimizer, build_scheduler
from relvlm.engine.train_step import train_step
from relvlm.plan.workload import Workload
from relvlm.pretraining.chunks import Chunk, chunks_of

WORKS = [
    Workload("captions", 3, 1, 5, 8, masked=2),
    Workload("mrc", 2, 3, 4, 8, relations=2),
    Workload("entities", 2, 3, 4, 8, masked=1, boxes=3),
]
RATE, CLIP, CHUNKS = 0.02, 10.0, 3  # the gradient of the relations is below, that of the others above

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="the model stays on the CPU")


def steps() -> list[list[Batch]]:
    return [[made_batch(work, 32, 4, 50, 7, seed) for seed in range(CHUNKS)] for work in WORKS]


def made_engine(stage: int, dtype: str = "fp32"):
    config = Config(accumulate=CHUNKS, dtype=dtype, optim=OptimConfig(clip_norm=CLIP))
    model = toy_pretraining(NOISY)
    settings = {"zero_optimization": {"stage": stage, "stage3_param_persistence_threshold": 0}}
    optimizer = torch.optim.SGD(model.parameters(), RATE)
    return distributed.initialize(model, optimizer, None, config, settings)


def plain_steps() -> tuple[dict[str, torch.Tensor], list[dict[str, torch.Tensor]], list[float]]:
    """Tensors after the steps, the sums of each step's values, and its gradient's norm before clipping."""
    step, sums, norms = toy_pretraining(NOISY), [], []
    for seed, chunks in enumerate(steps()):
        torch.manual_seed(seed)
        step.zero_grad()
        found = []
        for batch, chunk in zip(chunks, chunks_of(chunks), strict=True):
            total, values = step(batch, chunk)
            total.backward()
            found.append(values)
        norms.append(torch.nn.utils.clip_grad_norm_(step.parameters(), CLIP).item())
        with torch.no_grad():
            for parameter in step.parameters():
                parameter -= RATE * parameter.grad
        sums.append({name: sum(values[name] for values in found) for name in found[0]})
    tensors = {name: x.detach() for name, x in step.model.state_dict().items() if name != "mlm_head.decoder.weight"}
    return tensors, sums, norms


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_every_zero_stage_updates_as_plain_pytorch_does(stage, process_group):
    engine, (expected, sums, norms) = made_engine(stage), plain_steps()
    assert min(norms) < CLIP < max(norms)
    for seed, (chunks, values, expected_norm) in enumerate(zip(steps(), sums, norms, strict=True)):
        torch.manual_seed(seed)
        found, stepped, norm = train_step(engine, chunks)
        assert stepped and found.keys() == values.keys() and float(norm) == pytest.approx(expected_norm, rel=1e-4)
        for name in values:
            torch.testing.assert_close(found[name], values[name], rtol=1e-5, atol=1e-5)
    tensors = run_state.full_tensors(engine)
    assert tensors.keys() == expected.keys()
    for name, tensor in tensors.items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-5, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_bf16_follows_fp32(stage, process_group):
    engine, (_, sums, norms) = made_engine(stage, "bf16"), plain_steps()
    for seed, (chunks, values, expected_norm) in enumerate(zip(steps(), sums, norms, strict=True)):
        torch.manual_seed(seed)
        found, stepped, norm = train_step(engine, chunks)
        assert stepped and float(norm) == pytest.approx(expected_norm, rel=0.1)
        for name in (name for name in values if "accuracy" not in name):
            assert found[name].item() == pytest.approx(values[name].item(), rel=0.05), name


def test_a_rank_alone_takes_its_own_gradient_and_one_norm(process_group, monkeypatch):
    engine = made_engine(0)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda *_, **__: pytest.fail("a sum over one rank"))
    monkeypatch.setattr("deepspeed.runtime.engine.clip_grad_norm_", lambda **_: pytest.fail("a second norm"))
    assert train_step(engine, steps()[0]).stepped


def test_forward_backward_and_update_are_phases(process_group):
    engine, clock = made_engine(1), Clock(torch.device("cpu"))
    train_step(engine, steps()[0], clock)
    clock.lap()
    (seconds,) = clock.read()
    spent = {phase for phase, s in seconds.items() if s}
    assert spent == {"forward", "backward", "optimizer", "other"}


class Root(torch.nn.Module):
    """Its loss is finite always, its gradient only where the batch is "good": the root of 0. "lost" is no loss at all.

    The steps of a good gradient are all the same.
    """

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(2, 2)

    def forward(self, batch: str, of: Chunk | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        x = self.linear(torch.ones(1, 2, dtype=self.linear.weight.dtype))
        total = x.sum() + {"good": 0.0, "steep": torch.sqrt(x[0, 0] - x[0, 0]), "lost": float("nan")}[batch]
        return total.float(), {"itc": total.detach()}


STEPS = [
    ["good"], ["steep"], ["lost"], ["good"], ["good", "good", "good"], ["steep", "good"], ["good", "lost", "good"],
    ["good", "good"],
]  # fmt: skip


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_what_is_not_finite_is_a_skipped_step_of_which_nothing_remains(stage, dtype, process_group):
    found = {}
    for steps in (STEPS, [step for step in STEPS if set(step) == {"good"}]):
        torch.manual_seed(0)
        model, config = Root(), Config(dtype=dtype, accumulate=2, optim=OptimConfig(warmup_steps=1))
        optimizer = build_optimizer(model, config.optim)
        scheduler = build_scheduler(optimizer, config.optim, 10)
        engine = distributed.initialize(model, optimizer, scheduler, config, {"zero_optimization": {"stage": stage}})
        assert [train_step(engine, step)[1] for step in steps] == [set(step) == {"good"} for step in steps]
        found[len(steps)] = [p.detach().clone() for p in engine.module.parameters()]
    for one, other in zip(*found.values(), strict=True):
        assert one.isfinite().all() and torch.equal(one, other)
