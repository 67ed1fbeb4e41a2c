"""Means over boxes in Triton against the reference in fp64: in its interpreter on CPU tensors, or on a CUDA device."""

import pytest
import torch
from support.attention_cases import wave
from support.on_device import DEVICE, INTERPRETED, assert_close, drawn, started, triton_marks

from relvlm_kernels import reference

kernels = pytest.importorskip("relvlm_kernels.triton", reason="triton is not installed")
pytestmark = triton_marks()

DTYPES = [torch.float32, torch.float16] + ([] if INTERPRETED else [torch.bfloat16])


@pytest.mark.parametrize("dtype", DTYPES)
def test_box_mean_equals_fp64_reference(dtype, poisoned):
    """More boxes, patches and features than a tile has; boxes of images that are not there; an image without a box."""
    generator = torch.Generator().manual_seed(0)
    x = drawn(generator, 4, 36, 151, dtype=dtype)[:, :, 1:]
    image = torch.tensor([2, 0, 4, 2, -1] * 9).int().to(DEVICE)
    low = torch.stack([torch.randint(0, n, (45,), generator=generator) for n in (7, 5)], 1)
    high = torch.minimum(low + 1 + torch.randint(0, 7, (45, 2), generator=generator), torch.tensor([7, 5]))
    box = torch.cat([low, high], 1).int().to(DEVICE)
    box[0] = torch.tensor([0, 0, 7, 5])

    def results(module, x):
        out = module.box_mean(x, box, image, (5, 7))
        return out, module.box_mean_backward(wave(out), x, box, image, (5, 7))

    assert_close(results(kernels, x), results(reference, x.double()), dtype)


def test_tiles_as_measured(monkeypatch):
    """Another size is to be measured again."""
    found = started(monkeypatch)
    x, box, image = torch.ones(2, 66, 130, device=DEVICE), torch.tensor([[0, 0, 2, 2]] * 3), torch.tensor([0, 1, 1])
    kernels.box_mean(x, box.to(DEVICE), image.to(DEVICE), (8, 8))
    kernels.box_mean_backward(x[0, :3], x, box.to(DEVICE), image.to(DEVICE), (8, 8))
    assert [(name, programs) for name, programs, _ in found] == [
        ("box_mean", 3 * 2), ("plan", 2), ("box_mean_backward", 2 * 3 * 3),
    ]  # fmt: skip
    assert [blocks for *_, blocks in found] == [
        {"BLOCK_P": 32, "BLOCK_D": 128, "num_warps": 4, "num_stages": 1},
        {"BLOCK_G": 128, "BLOCK_R": 4, "num_warps": 4, "num_stages": 1},
        {"BLOCK_T": 32, "BLOCK_G": 16, "BLOCK_D": 64, "num_warps": 4, "num_stages": 1},
    ]
