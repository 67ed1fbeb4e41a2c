"""Pooling in Triton against the reference in fp64: in its interpreter on CPU tensors, or on a CUDA device."""

import pytest
import torch
from support.attention_cases import wave
from support.on_device import DEVICE, INTERPRETED, error, triton_marks

from relvlm_kernels import eager

kernels = pytest.importorskip("relvlm_kernels.triton", reason="triton is not installed")
pytestmark = triton_marks()

DTYPES = [torch.float32, torch.float16] + ([] if INTERPRETED else [torch.bfloat16])


def randn(generator, *shape, dtype):
    return torch.randn(*shape, dtype=torch.float64, generator=generator).to(DEVICE, dtype)


def assert_close(found, wanted, dtype, times=1):
    for a, b in zip(found, wanted, strict=True):
        assert a.dtype == dtype and error(a, b) < times * torch.finfo(dtype).eps


@pytest.mark.parametrize("dtype", DTYPES)
def test_box_mean_equals_fp64_reference(dtype, poisoned):
    x = randn(torch.Generator().manual_seed(0), 3, 36, 70, dtype=dtype)[:, :, 1:]
    box = torch.tensor([[0, 0, 7, 5], [2, 1, 3, 2], [1, 1, 5, 4], [0, 4, 7, 5]]).int().to(DEVICE)
    image = torch.tensor([2, 0, 2, 0]).int().to(DEVICE)

    def results(module, x):
        out = module.box_mean(x, box, image, (5, 7))
        return out, module.box_mean_backward(wave(out), x, box, image, (5, 7))

    assert_close(results(kernels, x), results(eager, x.double()), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_mrc_pool_equals_fp64_reference(dtype, poisoned):
    """Triplets of the same rows, a row in none, sizes that are no multiples of a tile."""
    generator = torch.Generator().manual_seed(0)
    subject, object_ = (torch.randint(0, 8, (70,), generator=generator).to(DEVICE) for _ in range(2))
    h, weight, bias = (randn(generator, *s, dtype=dtype) for s in [(9, 48), (70, 96), (70,)])
    out = eager.mrc_pool(h.double(), subject, object_, weight.double(), bias.double())

    def results(module, *tensors):
        args, seen = (tensors[0], subject, object_, *tensors[1:]), out.to(tensors[0].dtype)
        return module.mrc_pool(*args), *module.mrc_pool_backward(wave(seen), *args, seen)

    exact = (x.double() for x in (h, weight, bias))
    assert_close(results(kernels, h, weight, bias), results(eager, *exact), dtype, times=3)


def test_nan_passes_the_relu():
    h, rows = torch.full((1, 16), torch.nan, device=DEVICE), torch.zeros(1, dtype=torch.int64, device=DEVICE)
    weight = torch.ones(16, 32, device=DEVICE)
    assert kernels.mrc_pool(h, rows, rows, weight, weight[:, 0]).isnan().all()
