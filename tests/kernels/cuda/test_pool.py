"""Pooling of the `cuda` backend on a GPU, against the reference in fp64."""

import pytest
import torch
from support.attention_cases import box_case, moved, region_case, rms
from support.cuda_on_host import stand_in

from relvlm_kernels import cuda, reference
from relvlm_kernels.cuda import library

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
        (cuda.box_mean(x, *args), reference.box_mean(x.double(), *args)),
        (
            cuda.box_mean_backward(grad, x, *args),
            reference.box_mean_backward(grad.double(), x.double(), *args),
        ),
    ]
    for triplets in (70, 200):
        rows = torch.randint(90, (2, triplets), device=gpu)
        inputs = h, *rows, weight, bias
        exact = h.double(), *rows, weight.double(), bias.double()
        out, grad = cuda.mrc_pool(*inputs), torch.randn(triplets, 300, device=gpu, dtype=dtype)
        pairs += [(out, reference.mrc_pool(*exact))]
        pairs += zip(
            cuda.mrc_pool_backward(grad, *inputs, out),
            reference.mrc_pool_backward(grad.double(), *exact, out.double()), strict=True,
        )  # fmt: skip
    for found, wanted in pairs:
        assert rms(found.double() - wanted) <= bound * rms(wanted)


@pytest.mark.parametrize(
    "layout", [lambda x: x, lambda x: torch.cat([x, x], -1)[..., :40], lambda x: x.mT.contiguous().mT]
)
def test_box_means_are_asked_for_as_the_reference_s(monkeypatch, layout):
    """With the reference in the library's place: strides, sizes and grids."""
    started = stand_in(monkeypatch)
    x, grad, boxes = box_case(40)
    x, grad = x.float(), grad.float()
    torch.testing.assert_close(cuda.box_mean(layout(x), *boxes), reference.box_mean(x, *boxes))
    found = cuda.box_mean_backward(layout(grad), layout(x), *boxes)
    torch.testing.assert_close(found, reference.box_mean_backward(grad, x, *boxes))
    assert len(started) == 2


@pytest.mark.parametrize(("triplets", "width", "ours"), [(9, 64, 1), (10, 64, 0), (9, 48, 0)])
def test_pairs_are_gathered_where_they_are_no_more_than_rows(monkeypatch, triplets, width, ours):
    """And where h has whole steps of 32 columns; sums of rows are ours in any case."""
    started = stand_in(monkeypatch)
    generator = torch.Generator().manual_seed(0)
    h, weight, bias = (torch.randn(s, generator=generator) for s in [(9, width), (12, 2 * width), (12,)])
    inputs = h, *torch.randint(9, (2, triplets), generator=generator), weight, bias
    out = cuda.mrc_pool(*inputs)
    assert len(started) == ours
    torch.testing.assert_close(out, reference.mrc_pool(*inputs))
    found, wanted = (module.mrc_pool_backward(out.sin(), *inputs, out) for module in (cuda, reference))
    torch.testing.assert_close(found, wanted)
    assert len(started) > ours


@pytest.mark.parametrize("offset", [1, 4])
def test_rows_that_are_copied_by_16_bytes_lie_at_multiples_of_16(offset, monkeypatch):
    """Parameters that share a flat buffer, as under ZeRO, may begin anywhere in it."""
    started = []
    monkeypatch.setattr(library.Launch, "run", lambda call, function: started.append(call))
    flat = torch.randn(8192)

    def part(*shape):
        return flat[offset : offset + torch.Size(shape).numel()].view(shape)

    rows = torch.tensor([0, 2])
    cuda.mrc_pool(part(3, 32), rows, rows, part(5, 64), part(5))
    (call,) = started
    assert call.struct.h % 16 == call.struct.weight % 16 == 0
    assert (call.struct.h == part(3, 32).data_ptr()) == (offset == 4)  # copied only where it must be
