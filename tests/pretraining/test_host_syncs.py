"""What a GPU's host would wait for in a step, seen without a GPU: ops whose result's shape or value is read back."""

import warnings

import pytest
import torch
from support.batches import made_batch
from torch.utils._python_dispatch import TorchDispatchMode
from toys import DROPPING, LATE, NOISY, SWIN, TAUGHT, toy_pretraining

from relvlm.config.schema import ModelConfig
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


@pytest.mark.parametrize("kind", WORKS)
@pytest.mark.parametrize(
    "config",
    [NOISY, SWIN, LATE, DROPPING, TAUGHT],
    ids=["vit", "swin", "late vision", "patches dropped", "momentum"],
)
def test_a_step_waits_once_at_most(config: ModelConfig, kind: str) -> None:
    """For the number of tokens of the texts that were drawn as negatives."""
    batch, step = made_batch(WORKS[kind], 32, 4, 50, 7), toy_pretraining(config)
    with HostSyncs() as syncs:
        step(batch).total.backward()
    assert syncs.found in ([], ["aten.repeat_interleave.Tensor"])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", WORKS)
def test_cuda_itself_sees_one_wait_at_most(kind: str) -> None:
    batch, step = made_batch(WORKS[kind], 32, 4, 50, 7).to("cuda"), toy_pretraining().cuda()
    step(batch).total.backward()  # whatever is set up once
    torch.cuda.set_sync_debug_mode("warn")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        step(batch).total.backward()
    torch.cuda.set_sync_debug_mode("default")
    assert len([w for w in caught if "synchroniz" in str(w.message)]) <= 1


def test_such_ops_are_seen() -> None:
    x = torch.arange(3)
    with HostSyncs() as syncs:
        x[x > 1], x.sum().item(), x.repeat_interleave(x), torch.tensor([1])
        x.repeat_interleave(x, output_size=3)
    assert len(syncs.found) == 4
