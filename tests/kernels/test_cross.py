"""Cross-attention with its projection against the parts that it is made of, whatever the images at a time."""

import pytest
import torch
import torch.nn.functional as F
from support.attention_cases import small_regions
from torch.library import opcheck
from torch.utils.checkpoint import checkpoint

from relvlm_kernels import Regions, cross, region_attention, region_cross_attention

SEED = torch.tensor([2**40 + 7])
SHAPES = [(12, 2, 8), (3, 13, 5), (32, 5), (32,)]  # of q, x, weight, bias
ONE_IMAGE = 13 * 2 * 16 * 8  # bytes of keys and values, fp64


@pytest.fixture(params=[1, 2 * ONE_IMAGE, 1 << 20], ids=["one image", "two images", "all images"])
def chunk(request, monkeypatch):
    monkeypatch.setitem(cross.CHUNK_BYTES, "cpu", request.param)


def inputs(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randn(shape, dtype=torch.float64, generator=generator) for shape in SHAPES]
    return [x.to(dtype).requires_grad_() for x in tensors]


def in_parts(q, x, weight, bias, **options):
    k, v = F.linear(x, weight, bias).unflatten(-1, (2, *q.shape[1:])).unbind(2)
    return region_attention(q, k, v, small_regions(), **options)


def whole(*tensors, **options):
    return region_cross_attention(*tensors, small_regions(), **options)


def with_gradients(attend, tensors, **options):
    out = attend(*tensors, **options)
    wanted = [x for x in tensors if x.requires_grad]
    return out, *torch.autograd.grad(out, wanted, torch.linspace(-1, 1, out.numel()).view_as(out).to(out))


@pytest.mark.parametrize("options", [{}, {"scale": 0.2, "dropout": 0.4, "seed": SEED}], ids=["", "dropout"])
def test_equals_its_parts(options, backend, chunk):
    tensors = inputs()
    found, wanted = (with_gradients(attend, tensors, **options) for attend in (whole, in_parts))
    torch.testing.assert_close(found, wanted)


def test_half_precision_sums_in_fp32(monkeypatch):
    """Bfloat16's gradients are hardly further off by an image at a time, of 200, than by all at once."""
    shapes = [(600, 2, 8), (200, 13, 5), *SHAPES[2:]]
    q, x, *parameters = (torch.randn(s, generator=torch.Generator().manual_seed(1)).bfloat16() for s in shapes)
    regions = Regions.whole(torch.arange(201).int() * 3, torch.arange(200).int(), (3, 4))

    def gradients(dtype):
        tensors = [p.to(dtype).requires_grad_() for p in parameters]
        return torch.autograd.grad(region_cross_attention(q.to(dtype), x.to(dtype), *tensors, regions).sum(), tensors)

    exact, off = gradients(torch.float64), []
    for size in (1 << 30, 1):
        monkeypatch.setitem(cross.CHUNK_BYTES, "cpu", size)
        pairs = zip(gradients(torch.bfloat16), exact, strict=True)
        off.append([float((found - wanted).square().mean().sqrt()) for found, wanted in pairs])
    assert all(small < 1.5 * large for large, small in zip(*off, strict=True)), off


def test_image_tokens_without_gradient(chunk):
    q, x, weight, bias = inputs()
    tensors = q, x.detach(), weight, bias
    torch.testing.assert_close(with_gradients(whole, tensors), with_gradients(in_parts, tensors))


def test_slices_of_image_tokens(chunk):
    q, x, weight, bias = inputs()
    wide = torch.cat([x, x], 1).detach().requires_grad_()
    found = with_gradients(lambda q, wide, *rest: whole(q, wide[:, 13:], *rest), [q, wide, weight, bias])
    wanted = with_gradients(whole, [q, x, weight, bias])
    torch.testing.assert_close(found[2][:, 13:], wanted[2])


def test_queries_of_no_image_get_no_gradient(backend, poisoned):
    """There are no images, and no group owns the rows."""
    none = torch.zeros(0).int()
    regions = Regions.whole(torch.zeros(1).int(), none, small_regions().grid)
    q, x, *parameters = inputs()
    x = x[:0].detach().requires_grad_()
    out, dq, dx, *of_parameters = with_gradients(
        lambda *tensors: region_cross_attention(*tensors, regions), [q, x, *parameters]
    )
    assert not dq.any() and dx.shape == x.shape and not any(g.any() for g in (out, *of_parameters))


def test_queries_of_an_image_that_is_not_there_get_no_gradient(backend, chunk, poisoned):
    """As a GPU may be given one, on which nobody looks at the index tensors."""
    (q, x, weight, bias), r = inputs(), small_regions()
    index = [r.offsets, r.image, r.box, r.prefix, r.mean, *r.grid]
    saved = cross._region_cross_attention(q, x, weight, bias, *index, 0.3, 0.0, None)
    index[1] = torch.where(r.image == 2, 7, r.image)
    arguments = torch.ones_like(q), q, x, weight, *saved, *index, 0.3, 0.0, True, None
    dq, *_ = cross._region_cross_attention_backward(*(a.detach() if torch.is_tensor(a) else a for a in arguments))
    there = (r.image == 0).repeat_interleave(r.offsets.diff())
    assert dq.isfinite().all() and dq[there].any() and not dq[~there].any()


def test_gradcheck(backend, chunk):
    assert torch.autograd.gradcheck(lambda *x: whole(*x, dropout=0.3, seed=SEED), inputs(), fast_mode=True)


@pytest.mark.parametrize("options", [(0.0, None), (0.3, SEED)], ids=["", "dropout"])
def test_opcheck(options, backend):
    r = small_regions()
    index = r.offsets, r.image, r.box, r.prefix, r.mean, *r.grid
    opcheck(torch.ops.relvlm.region_cross_attention.default, (*inputs(), *index, 0.3, *options))
    q, x, weight, bias = inputs()
    opcheck(torch.ops.relvlm.region_cross_attention.default, (q, x.detach(), weight, bias, *index, 0.3, *options))


def test_compiles(backend):
    tensors = inputs()
    found = with_gradients(torch.compile(whole, backend="aot_eager", fullgraph=True), tensors)
    torch.testing.assert_close(found, with_gradients(whole, tensors))


def test_checkpointing_draws_the_same_dropout(chunk):
    tensors = inputs()
    found = []
    for attend in (whole, lambda *x, **options: checkpoint(whole, *x, use_reentrant=False, **options)):
        torch.manual_seed(5)
        found.append(with_gradients(attend, tensors, dropout=0.5))
    torch.testing.assert_close(*found, rtol=0, atol=0)


def test_autocast():
    tensors = inputs(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        found = with_gradients(whole, tensors)
    wanted = with_gradients(whole, [x.detach().bfloat16().requires_grad_() for x in tensors])
    assert found[0].dtype == torch.bfloat16 and all(x.dtype == torch.float32 for x in found[1:])
    torch.testing.assert_close(found, tuple(x.to(y) for x, y in zip(wanted, found, strict=True)))


@pytest.mark.parametrize(
    ("images", "room", "wanted"), [(7, 3, 3), (4, 3, 2), (3, 3, 3), (5, 0.5, 1), (0, 3, 1), (9, 3.9, 3)]
)
def test_chunks_fit_the_buffer_and_are_alike(monkeypatch, images, room, wanted):
    monkeypatch.setitem(cross.CHUNK_BYTES, "cpu", int(room * ONE_IMAGE))
    assert cross._images_at_once(torch.empty(images, 13, 2, 2, 8, dtype=torch.float64)) == wanted


@pytest.mark.parametrize(("device", "wanted"), [("cpu", 8), ("meta", 64)])
def test_the_buffer_has_8_mib_on_the_cpu_and_64_elsewhere(device, wanted):
    """As measured: another size is to be measured again."""
    assert cross._images_at_once(torch.empty(128, 1024, 2, 1, 128, device=device)) == wanted


@pytest.mark.parametrize(("dtype", "size", "wanted"), [
    (torch.bfloat16, 1, torch.float32), (torch.bfloat16, 1 << 20, torch.bfloat16), (torch.float32, 1, torch.float32),
    (torch.float64, 1, torch.float64),
])  # fmt: skip
def test_sums_over_chunks_are_in_float32_at_least(monkeypatch, dtype, size, wanted):
    seen = []
    add = cross._add_linear_backward
    monkeypatch.setitem(cross.CHUNK_BYTES, "cpu", size)
    monkeypatch.setattr(cross, "_add_linear_backward", lambda *args: seen.append(args[-1].dtype) or add(*args))
    with_gradients(whole, inputs(dtype))
    assert set(seen) == {wanted}
