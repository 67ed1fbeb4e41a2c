"""Pooling of the `cuda` backend on a GPU, against the reference in fp64."""

import pytest
import torch
from support.attention_cases import moved, region_case, rms

from relvlm_kernels import cuda, eager

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
def test_pooling_equals_fp64_reference(gpu, dtype):
    torch.manual_seed(0)
    _, index = region_case(32, grid=(14, 14), images=5, groups=40)
    (regions,) = moved(index, gpu)
    bound = 4 * torch.finfo(dtype).eps
    x, h, weight, bias = (
        torch.randn(s, device=gpu, dtype=dtype) for s in [(5, 197, 768), (90, 768), (300, 1536), (300,)]
    )
    args = regions.box, regions.image, regions.grid
    grad = torch.randn(len(regions.image), 768, device=gpu, dtype=dtype)
    pairs = [
        (cuda.box_mean(x, *args), eager.box_mean(x.double(), *args)),
        (
            cuda.box_mean_backward(grad, x, *args),
            eager.box_mean_backward(grad.double(), x.double(), *args),
        ),
    ]
    for triplets in (70, 200):
        rows = torch.randint(90, (2, triplets), device=gpu)
        inputs = h, *rows, weight, bias
        exact = h.double(), *rows, weight.double(), bias.double()
        out, grad = cuda.mrc_pool(*inputs), torch.randn(triplets, 300, device=gpu, dtype=dtype)
        pairs += [(out, eager.mrc_pool(*exact))]
        pairs += zip(
            cuda.mrc_pool_backward(grad, *inputs, out),
            eager.mrc_pool_backward(grad.double(), *exact, out.double()), strict=True,
        )  # fmt: skip
    for found, wanted in pairs:
        assert rms(found.double() - wanted) <= bound * rms(wanted)
