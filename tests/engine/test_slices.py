"""What one rank holds at each ZeRO stage and dtype: parameters, whole, as views. Of several: test_resume_matrix.py."""

import pytest
import torch
from toys import toy_pretraining

from relvlm.config.schema import Config, OptimConfig
from relvlm.engine import distributed, slices
from relvlm.engine.schedule import build_optimizer, build_scheduler

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="the model stays on the CPU")
EVERY = [(stage, dtype) for stage in range(4) for dtype in ("fp32", "bf16")]


def made_engine(stage: int, dtype: str):
    config, model = Config(dtype=dtype, optim=OptimConfig(warmup_steps=1)), toy_pretraining()
    optimizer = build_optimizer(model.model, config.optim)
    zero = {"stage": stage, "stage3_param_persistence_threshold": 300}
    scheduler = build_scheduler(optimizer, config.optim, 10)
    return distributed.initialize(model, optimizer, scheduler, config, {"zero_optimization": zero})


@pytest.mark.parametrize(("stage", "dtype"), EVERY)
def test_what_is_written_into_the_slices_is_what_the_model_computes_with(stage, dtype, process_group):
    engine = made_engine(stage, dtype)
    expected = {name: p.detach().float().clone() for name, p in toy_pretraining().model.named_parameters()}
    held = slices.held(engine)
    assert [each.name for each in held] == list(expected) and slices.updates(engine) == 0
    rounded = (lambda x: x.bfloat16().float()) if dtype == "bf16" else (lambda x: x)
    for each in held:
        assert (each.start, set(each.parts)) == (0, {"weight", *slices.MOMENTS})
        assert all(x.dtype == torch.float32 and x.dim() == 1 for x in each.parts.values())
        assert torch.equal(rounded(each.parts["weight"]), rounded(expected[each.name].flatten()))
        assert not any(each.parts[moment].any() for moment in slices.MOMENTS)
        each.parts["weight"].add_(1.0)
        each.parts["exp_avg"].fill_(3.0)
    slices.set_updates(engine, 7)
    slices.refresh(engine)
    assert slices.updates(engine) == 7
    whole = engine.module.model.state_dict()
    if stage == 3:
        found = engine._zero3_consolidated_16bit_state_dict()
        whole = {name.removeprefix("model."): x for name, x in found.items()}
    for each in slices.held(engine):
        assert (each.parts["exp_avg"] == 3.0).all()
        assert torch.equal(whole[each.name].float().flatten(), rounded(each.parts["weight"]))


def test_what_is_not_trained_has_no_slices(process_group):
    model = toy_pretraining()
    model.model.box_head.requires_grad_(False)
    config = Config(optim=OptimConfig(warmup_steps=1))
    optimizer = build_optimizer(model.model, config.optim)
    scheduler = build_scheduler(optimizer, config.optim, 10)
    engine = distributed.initialize(model, optimizer, scheduler, config, {"zero_optimization": {"stage": 1}})
    names = {each.name for each in slices.held(engine)}
    assert names == {name for name, p in model.model.named_parameters() if p.requires_grad}
    assert not any(name.startswith("box_head") for name in names)
