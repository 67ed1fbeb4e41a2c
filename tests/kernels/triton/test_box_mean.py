"""Means over boxes in Triton against the reference in fp64: in its interpreter on CPU tensors, or on a CUDA device."""

import pytest
import torch
from support.attention_cases import wave
from support.on_device import DEVICE, INTERPRETED, assert_close, drawn, triton_marks

from relvlm_kernels import eager

kernels = pytest.importorskip("relvlm_kernels.triton", reason="triton is not installed")
pytestmark = triton_marks()

DTYPES = [torch.float32, torch.float16] + ([] if INTERPRETED else [torch.bfloat16])


@pytest.mark.parametrize("dtype", DTYPES)
def test_box_mean_equals_fp64_reference(dtype, poisoned):
    x = drawn(torch.Generator().manual_seed(0), 3, 36, 70, dtype=dtype)[:, :, 1:]
    box = torch.tensor([[0, 0, 7, 5], [2, 1, 3, 2], [1, 1, 5, 4], [0, 4, 7, 5]]).int().to(DEVICE)
    image = torch.tensor([2, 0, 2, 0]).int().to(DEVICE)

    def results(module, x):
        out = module.box_mean(x, box, image, (5, 7))
        return out, module.box_mean_backward(wave(out), x, box, image, (5, 7))

    assert_close(results(kernels, x), results(eager, x.double()), dtype)
