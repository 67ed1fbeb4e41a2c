"""Means over boxes in C++ against the reference."""

import pytest
import torch
from support.attention_cases import box_case, rms

from relvlm_kernels import backends, cpu, reference

MISSING = backends.BACKENDS["cpu"].missing
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"cpu kernels: {MISSING}")


@pytest.mark.parametrize("width", [1, 5, 16, 40])
@pytest.mark.parametrize("prefix", [0, 1, 3])
def test_equals_the_reference(width, prefix, instructions, threads, poisoned):
    x, grad, boxes = box_case(width, prefix)
    torch.testing.assert_close(cpu.box_mean(x, *boxes), reference.box_mean(x, *boxes))
    found, wanted = (m.box_mean_backward(grad, x, *boxes) for m in (cpu, reference))
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_other_dtypes(dtype, instructions):
    x, grad, boxes = box_case()
    x, grad, eps = x.to(dtype), grad.to(dtype), torch.finfo(dtype).eps
    found, wanted = cpu.box_mean(x, *boxes), reference.box_mean(x.double(), *boxes)
    assert found.dtype == dtype and rms(found - wanted) < eps * rms(wanted)
    found = cpu.box_mean_backward(grad, x, *boxes)
    wanted = reference.box_mean_backward(grad.double(), x.double(), *boxes)
    assert rms(found - wanted) < eps * rms(wanted)


def test_slices_and_nothing():
    x, grad, (box, image, grid) = box_case()
    wanted = cpu.box_mean(x, box, image, grid)
    for layout in (torch.cat([x, x], 2)[..., :24], torch.cat([x, x], 1)[:, :36], x.mT.contiguous().mT):
        torch.testing.assert_close(cpu.box_mean(layout, box, image, grid), wanted, rtol=0, atol=0)
    torch.testing.assert_close(
        cpu.box_mean_backward(grad[:1].expand(13, -1), x, box, image, grid),
        cpu.box_mean_backward(grad[:1].repeat(13, 1), x, box, image, grid),
    )
    none = box[:0], image[:0], grid
    assert cpu.box_mean(x, *none).shape == (0, 24) and not cpu.box_mean_backward(grad[:0], x, *none).any()
