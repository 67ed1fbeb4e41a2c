"""Pooling of triplets in Triton against the reference in fp64: on a CUDA device, or in the interpreter on the CPU."""

import pytest
import torch
from support.attention_cases import wave
from support.on_device import DEVICE, INTERPRETED, assert_close, drawn, started, triton_marks

from relvlm_kernels import reference

kernels = pytest.importorskip("relvlm_kernels.triton", reason="triton is not installed")
pytestmark = triton_marks()

DTYPES = [torch.float32, torch.float16] + ([] if INTERPRETED else [torch.bfloat16])


@pytest.mark.parametrize("dtype", DTYPES)
def test_mrc_pool_equals_fp64_reference(dtype, poisoned):
    """Triplets of the same rows, a row in none, sizes that are no multiples of a tile."""
    generator = torch.Generator().manual_seed(0)
    subject, object_ = (torch.randint(0, 8, (70,), generator=generator).to(DEVICE) for _ in range(2))
    h, weight, bias = (drawn(generator, *s, dtype=dtype) for s in [(9, 150), (70, 300), (70,)])
    out = reference.mrc_pool(h.double(), subject, object_, weight.double(), bias.double())

    def results(module, *tensors):
        args, seen = (tensors[0], subject, object_, *tensors[1:]), out.to(tensors[0].dtype)
        return module.mrc_pool(*args), *module.mrc_pool_backward(wave(seen), *args, seen)

    exact = (x.double() for x in (h, weight, bias))
    assert_close(results(kernels, h, weight, bias), results(reference, *exact), dtype, times=3)


def test_nan_passes_the_relu():
    h, rows = torch.full((1, 16), torch.nan, device=DEVICE), torch.zeros(1, dtype=torch.int64, device=DEVICE)
    weight = torch.ones(16, 32, device=DEVICE)
    assert kernels.mrc_pool(h, rows, rows, weight, weight[:, 0]).isnan().all()


@pytest.mark.parametrize(("dtype", "stages"), [(torch.float32, 1), (torch.float16, 2)])
def test_tiles_as_measured(monkeypatch, dtype, stages):
    """Another size is to be measured again."""
    found = started(monkeypatch)
    h, rows = torch.ones(9, 150, device=DEVICE, dtype=dtype), torch.zeros(70, dtype=torch.int64, device=DEVICE)
    weight, out = torch.ones(80, 300, device=DEVICE, dtype=dtype), torch.ones(70, 80, device=DEVICE, dtype=dtype)
    kernels.mrc_pool(h, rows, rows, weight, weight[:, 0])
    kernels.mrc_pool_backward(out, h, rows, rows, weight, weight[:, 0], out)
    assert [(name, programs) for name, programs, _ in found] == [
        ("mrc_pool", 2 * 2), ("mrc_pool_backward_weight", 2 * 2 * 3), ("mrc_pool_backward_rows", 2 * 2 * 3),
        ("mrc_pool_backward_h", 9 * 2),
    ]  # fmt: skip
    assert [blocks for *_, blocks in found] == [
        {"BLOCK_R": 64, "BLOCK_F": 64, "BLOCK_D": 32, "num_warps": 4, "num_stages": 3},
        {"BLOCK_R": 32, "BLOCK_F": 64, "BLOCK_D": 64, "num_warps": 4, "num_stages": stages},
        {"BLOCK_R": 64, "BLOCK_F": 32, "BLOCK_D": 64, "num_warps": 4, "num_stages": 1},
        {"BLOCK_D": 128, "num_warps": 4, "num_stages": 1},
    ]
