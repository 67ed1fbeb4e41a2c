"""What a GPU's host would wait for in a step, seen without a GPU: ops whose result's shape or value is read back."""

import warnings
from dataclasses import replace

import pytest
import torch
from support.batches import made_batch
from torch.utils._python_dispatch import TorchDispatchMode

from relvlm.config.schema import FusionConfig, ModelConfig, MomentumConfig, TextConfig
from relvlm.config.vision import SwinConfig, ViTConfig
from relvlm.model import RelVLM
from relvlm.plan.workload import Workload

aten = torch.ops.aten
READ_BACK = {
    aten._local_scalar_dense.default,  # item, tolist, bool
    aten.equal.default,
    aten.masked_select.default,
    aten.multinomial.default,
    aten.nonzero.default,
    aten.unique_dim.default,
    aten._unique2.default,
    aten.unique_consecutive.default,
    aten.lift_fresh.default,  # torch.tensor of Python numbers: a copy from the host, which waits
}


class HostSyncs(TorchDispatchMode):
    """Collects the ops that wait."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        unsized = func is aten.repeat_interleave.Tensor and kwargs.get("output_size") is None
        indexed = func in (aten.index.Tensor, aten.index_put.default, aten.index_put_.default)
        by_mask = indexed and any(x is not None and x.dtype == torch.bool for x in args[1])
        if func in READ_BACK or unsized or by_mask:
            self.found.append(str(func))
        return func(*args, **kwargs)


WORKS = {
    "captions": Workload("captions", 4, 1, 6, 16, masked=2),
    "entities": Workload("entities", 2, 3, 4, 8, masked=1, boxes=3),
    "mrc": Workload("mrc", 2, 3, 4, 8, relations=2),
}
VIT = ModelConfig(
    image_size=32,
    embed_dim=16,
    vision=ViTConfig(width=32, layers=2, heads=2, patch_size=8, late_blocks=1),
    text=TextConfig(layers=2, heads=2, width=32, max_positions=16),
    fusion=FusionConfig(layers=2, heads=2),
    mrc_hidden=24,
)
SWIN = replace(VIT, vision=SwinConfig(width=16, heads=[2, 4], patch_size=4, depths=[1, 1], window=4))
LATE = replace(VIT, fusion=FusionConfig(layers=2, heads=2, region_mask="late_vision"))
DROPPING = replace(VIT, vision=replace(VIT.vision, patch_keep=0.5))
TAUGHT = replace(VIT, momentum=MomentumConfig(enabled=True, queue=64))


@pytest.mark.parametrize("kind", WORKS)
@pytest.mark.parametrize(
    "config",
    [VIT, SWIN, LATE, DROPPING, TAUGHT],
    ids=["vit", "swin", "late vision", "patches dropped", "momentum"],
)
def test_a_step_waits_once_at_most(config: ModelConfig, kind: str) -> None:
    """For the number of tokens of the texts that were drawn as negatives."""
    batch, model = made_batch(WORKS[kind], 32, 4, 50, 7), RelVLM(config, 50, 7)
    x0, y0, x1, y1 = batch.box[batch.region].long().unbind(1)
    batch = replace(batch, region_patches=int(((x1 - x0) * (y1 - y0)).sum()))
    with HostSyncs() as syncs:
        model(batch)[0].backward()
    assert syncs.found in ([], ["aten.repeat_interleave.Tensor"])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", WORKS)
def test_cuda_itself_sees_one_wait_at_most(kind: str) -> None:
    batch, model = made_batch(WORKS[kind], 32, 4, 50, 7).to("cuda"), RelVLM(VIT, 50, 7).cuda()
    model(batch)[0].backward()  # whatever is set up once
    torch.cuda.set_sync_debug_mode("warn")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model(batch)[0].backward()
    torch.cuda.set_sync_debug_mode("default")
    assert len([w for w in caught if "synchroniz" in str(w.message)]) <= 1


def test_such_ops_are_seen() -> None:
    x = torch.arange(3)
    with HostSyncs() as syncs:
        x[x > 1], x.sum().item(), x.repeat_interleave(x), torch.tensor([1])
        x.repeat_interleave(x, output_size=3)
    assert len(syncs.found) == 4
