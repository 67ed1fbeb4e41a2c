"""The Triton kernels against the reference in fp64. `test_triton.py` runs this file in a process of its own: in the
interpreter of Triton (TRITON_INTERPRET=1 before the import) on CPU tensors, or on a CUDA device.

Not with bfloat16 in the interpreter, which gets that wrong.
"""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from triton import knobs

from relvlm_kernels import Regions, backends, eager, ops
from relvlm_kernels import triton as kernels
from relvlm_kernels.triton import plan

INTERPRETED = knobs.runtime.interpret
DEVICE = "cpu" if INTERPRETED else "cuda"
DTYPES = [torch.float32, torch.float16] + ([] if INTERPRETED else [torch.bfloat16])
SEED = -0x123456789ABCDEF0
NAMES = {
    "region_attention": ("out", "lse", "dq", "dk", "dv"), "varlen_attention": ("out", "lse", "dq", "dk", "dv"),
    "box_mean": ("out", "dx"), "mrc_pool": ("out", "dh", "dweight", "dbias"),
}  # fmt: skip


@pytest.fixture(autouse=True)
def poisoned(monkeypatch):
    """Memory begins as NaN: what a kernel leaves unwritten shows."""
    plain = torch.empty

    def poison(*args, **kwargs):
        out = plain(*args, **kwargs)
        return out.fill_(torch.nan) if out.is_floating_point() else out.fill_(12345)

    monkeypatch.setattr(torch, "empty", poison)


def randn(generator, *shape, dtype):
    return torch.randn(*shape, dtype=torch.float64, generator=generator).to(DEVICE, dtype)


def region_case(dtype, width=32, grid=(5, 7), prefix=1, heads=2):
    """Seven groups on four images, in no order: one without tokens, a long one, one patch, whole images, any flags.

    Image 3 has no group.
    """
    generator = torch.Generator().manual_seed(width)
    lengths, images = torch.tensor([5, 0, 40, 3, 1, 7, 6]), torch.tensor([2, 0, 0, 2, 1, 0, 2])
    rows, columns = grid
    whole = [0, 0, columns, rows]
    box = [
        [1, 0, 4, 2],
        whole,
        [0, 1, columns, rows],
        [2, 2, 3, 3],
        whole,
        [columns - 1, 0, columns, 1],
        [0, 1, 2, 3],
    ]
    prefixes, means = [0, 1, 0, 0, 1, 1, 1], [1, 1, 1, 1, 0, 0, 1]
    regions = Regions(
        torch.tensor([0, *lengths.cumsum(0)]).int(), images.int(), torch.tensor(box).int(),
        torch.tensor(prefixes).bool(), torch.tensor(means).bool(), grid,
    )  # fmt: skip
    keys = (4, prefix + rows * columns, heads, width)
    tensors = [randn(generator, *s, dtype=dtype) for s in [(int(lengths.sum()), heads, width), keys, keys]]
    return tensors, (on_device(regions),)


def on_device(regions):
    index = (regions.offsets, regions.image, regions.box, regions.prefix, regions.mean)
    return Regions(*(x.to(DEVICE) for x in index), regions.grid)


def varlen_case(dtype, width=32, heads=2):
    """Sequences of 0 to 40 queries and 0 to 70 keys."""
    generator = torch.Generator().manual_seed(width)
    lengths = torch.tensor([3, 0, 17, 40, 1]), torch.tensor([7, 4, 16, 70, 0])
    tensors = [randn(generator, int(n.sum()), heads, width, dtype=dtype) for n in (lengths[0], *[lengths[1]] * 2)]
    return tensors, tuple(torch.tensor([0, *n.cumsum(0)]).int().to(DEVICE) for n in lengths)


def attention(module, op, tensors, index, dropout=0.0, scale=0.2):
    """Output, log-sum-exp and gradients, the output's gradient being a fixed function of its place."""
    rest = (*index, scale, dropout, torch.tensor([SEED], device=DEVICE) if dropout else None)
    out, lse = getattr(module, op)(*tensors, *rest)
    return out, lse, *getattr(module, f"{op}_backward")(wave(out), *tensors, out, lse, *rest)


def wave(out):
    """A gradient that every dtype holds exactly."""
    place = torch.arange(out.numel(), device=out.device, dtype=torch.float64)
    return place.mul(0.7).sin().mul(64).round().div(64).view(out.shape).to(out.dtype)


def by_sdpa(tensors, index, scale=0.2):
    """The same from PyTorch's own attention, a group (or sequence) at a time, the mean token appended for real."""
    q, k, v = (x.detach().clone().requires_grad_() for x in tensors)
    parts = [
        scaled_dot_product_attention(*(x.transpose(0, 1)[None] for x in (q[rows], seen(k), seen(v))), scale=scale)
        for rows, seen in (groups(*index) if len(index) == 1 else sequences(*index))
    ]
    out = torch.cat([part[0].transpose(0, 1) for part in parts])
    return out.detach(), *torch.autograd.grad(out, (q, k, v), wave(out))


def groups(regions):
    """Rows of the queries, and what selects the tokens that they see."""
    for g, (x0, y0, x1, y1) in enumerate(regions.box.tolist()):

        def seen(x, g=g, x0=x0, y0=y0, x1=x1, y1=y1):
            tokens = x[regions.image[g].item()]
            patches = tokens[tokens.shape[0] - regions.grid[0] * regions.grid[1] :].unflatten(0, regions.grid)
            patches = patches[y0:y1, x0:x1].flatten(0, 1)
            prefix = tokens[: tokens.shape[0] - regions.grid[0] * regions.grid[1]]
            mean = patches.mean(0, keepdim=True)
            return torch.cat([prefix] * bool(regions.prefix[g]) + [patches] + [mean] * bool(regions.mean[g]))

        start, end = regions.offsets[g : g + 2].tolist()
        if end > start:
            yield slice(start, end), seen


def sequences(cu_q, cu_k):
    for q_rows, k_rows in zip(cu_q.unfold(0, 2, 1).tolist(), cu_k.unfold(0, 2, 1).tolist(), strict=True):
        if q_rows[0] < q_rows[1]:
            yield slice(*q_rows), lambda x, k_rows=k_rows: x[slice(*k_rows)]


def error(found, wanted):
    """Root mean square, in terms of the wanted values'."""
    return float((found.double() - wanted).square().mean().sqrt() / wanted.square().mean().sqrt())


def assert_close(op, found, wanted, dtype, times=1.0):
    """Equal to rounding: errors of a few units in the last place, and infinities in the same places."""
    for name, a, b in zip(NAMES[op], found, wanted, strict=True):
        assert a.dtype == (torch.float32 if name == "lse" else dtype), name
        if name == "lse":
            assert torch.equal(a.isneginf(), b.isneginf())
            a, b = a.clamp(min=-1e4), b.clamp(min=-1e4)
        assert error(a, b) < times * torch.finfo(dtype).eps, name


CASES = [
    ("region_attention", {}, torch.float32, 0.0),
    ("region_attention", {"width": 64, "heads": 1}, torch.float16, 0.3),
    ("region_attention", {"width": 80, "prefix": 0, "heads": 1}, torch.float16, 0.0),
    ("region_attention", {"grid": (3, 33), "prefix": 5, "heads": 1}, torch.float32, 0.3),  # no words of bits
    ("varlen_attention", {"width": 96}, torch.float32, 0.3),
    ("varlen_attention", {"width": 128}, torch.float16, 0.0),
]
ON_GPU_ONLY = [
    *[("region_attention", {"width": w, "grid": (14, 14)}, torch.bfloat16, 0.0) for w in (32, 64, 80, 96, 128)],
    *[("region_attention", {"width": 64, "grid": (24, 24)}, dtype, 0.1) for dtype in DTYPES],
    ("region_attention", {"width": 64, "grid": (32, 32)}, torch.bfloat16, 0.0),
    ("region_attention", {"width": 128}, torch.float32, 0.0),
    ("varlen_attention", {"width": 64}, torch.bfloat16, 0.1),
]


@pytest.mark.parametrize(("op", "options", "dtype", "dropout"), CASES + (ON_GPU_ONLY if not INTERPRETED else []))
def test_attention_equals_fp64_reference(op, options, dtype, dropout):
    """Output, lse and every gradient, with the very keep-mask of the reference where there is dropout."""
    tensors, index = (region_case if op == "region_attention" else varlen_case)(dtype, **options)
    wanted = attention(eager, op, [x.double() for x in tensors], index, dropout)
    hardware = 4 if dtype == torch.float32 and not INTERPRETED else 1  # its exp2 and log2 are approximate
    assert_close(op, attention(kernels, op, tensors, index, dropout), wanted, dtype, times=8 * hardware)


@pytest.mark.parametrize("case", [region_case, varlen_case])
@pytest.mark.parametrize("dtype", DTYPES)
def test_error_is_at_most_twice_that_of_pytorch_attention(case, dtype):
    tensors, index = case(dtype)
    op = case.__name__.replace("case", "attention")
    out, _, *gradients = attention(kernels, op, tensors, index)
    wanted = by_sdpa([x.double() for x in tensors], index)
    for name, ours, theirs, exact in zip("oqkv", [out, *gradients], by_sdpa(tensors, index), wanted, strict=True):
        assert error(ours, exact) <= 2 * error(theirs, exact), name


def test_plan_puts_the_rows_of_an_image_side_by_side():
    """More groups than a block holds, in no order, some without rows."""
    generator = torch.Generator().manual_seed(0)
    lengths, image = (torch.randint(0, n, (300,), generator=generator) for n in (7, 5))
    owner = torch.arange(300).repeat_interleave(lengths)
    box = torch.randint(0, 60000, (300, 4), generator=generator)
    flags = torch.randint(0, 2, (2, 300), generator=generator)
    index = (torch.tensor([0, *lengths.cumsum(0)]), image, box, *flags)
    found = plan.by_image(*(x.to(DEVICE) for x in index), images=6, rows=len(owner))
    order = image[owner].argsort(stable=True)
    x0, y0, x1, y1 = box[owner[order]].unbind(1)
    words = [order, y0 | y1 << 16, x0 | x1 << 16, (flags[0] + 2 * flags[1])[owner[order]]]
    assert torch.equal(found.table.cpu(), torch.stack(words).int())
    assert found.starts.tolist() == torch.searchsorted(image[owner][order], torch.arange(7)).tolist()
    assert found.with_mean.tolist() == [1, 1, 1, 1, 1, 0]


def test_image_without_group_gets_zero_gradients():
    tensors, index = region_case(torch.float32)
    *_, dk, dv = attention(kernels, "region_attention", tensors, index)
    assert not dk[3].any() and not dv[3].any() and dk[:3].any((1, 2, 3)).all()


def test_no_queries():
    (_, k, v), (regions,) = region_case(torch.float32)
    empty = Regions.whole(torch.zeros(1).int().to(DEVICE), regions.image[:0], regions.grid)
    out, lse, dq, dk, dv = attention(kernels, "region_attention", (k[0, :0], k, v), (empty,))
    assert out.shape == dq.shape == (0, *k.shape[2:]) and lse.shape == (0, k.shape[2])
    assert not dk.any() and not dv.any()


def test_strided_inputs():
    """Slices of one joint projection, as the encoders make them, and a layout that needs a copy."""
    (q, k, v), index = region_case(torch.float32)
    wanted = attention(kernels, "region_attention", (q, k, v), index)
    joint = torch.stack([k, v], 2)
    strided = (q.mT.contiguous().mT, joint[:, :, 0], joint[:, :, 1])
    torch.testing.assert_close(attention(kernels, "region_attention", strided, index), wanted, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients_by_images_into_a_small_buffer(dtype):
    """One image, then three: what is written is the whole, groups of other images stay as they were."""
    (q, k, v), (regions,) = region_case(dtype)
    wanted = attention(kernels, "region_attention", (q, k, v), (regions,))
    found = q.new_full((len(q), 2, *q.shape[1:]), torch.nan), k.new_empty(4, k.shape[1], 2, *k.shape[2:])
    for first, last in ((0, 1), (1, 4)):
        part = Regions(**vars(regions) | {"image": regions.image - first})
        to = found[0][:, 1], *found[1][first:last].unbind(2)
        args = wave(q), q, k[first:last], v[first:last], *wanted[:2], part, 0.2, 0.0, None
        kernels.region_attention_backward(*args, to)
    torch.testing.assert_close((found[0][:, 1], *found[1].unbind(2)), wanted[2:], rtol=0, atol=0)
    assert found[0][:, 0].isnan().all()


def test_same_bits_every_time():
    tensors, index = region_case(DTYPES[-1])
    first, second = (attention(kernels, "region_attention", tensors, index, 0.2) for _ in range(2))
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_large_scores_do_not_overflow():
    (q, k, v), index = varlen_case(torch.float32)
    large = (q * 100, k * 100, v)
    wanted = attention(eager, "varlen_attention", [x.double() for x in large], index)
    found = attention(kernels, "varlen_attention", large, index)
    assert all(x[:-1].isfinite().all() for x in found)
    assert error(found[0], wanted[0]) < 1e-3  # scores of 1e5 are off by 1e-2 themselves


@pytest.mark.parametrize("dtype", DTYPES)
def test_box_mean_equals_fp64_reference(dtype):
    generator = torch.Generator().manual_seed(0)
    x = randn(generator, 3, 36, 70, dtype=dtype)[:, :, 1:]
    box = torch.tensor([[0, 0, 7, 5], [2, 1, 3, 2], [1, 1, 5, 4], [0, 4, 7, 5]]).int().to(DEVICE)
    image = torch.tensor([2, 0, 2, 0]).int().to(DEVICE)

    def results(module, x):
        out = module.box_mean(x, box, image, (5, 7))
        return out, module.box_mean_backward(wave(out), x, box, image, (5, 7))

    assert_close("box_mean", results(kernels, x), results(eager, x.double()), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_mrc_pool_equals_fp64_reference(dtype):
    """Triplets of the same rows, a row in none, sizes that are no multiples of a tile."""
    generator = torch.Generator().manual_seed(0)
    subject, object_ = (torch.randint(0, 8, (70,), generator=generator).to(DEVICE) for _ in range(2))
    h, weight, bias = (randn(generator, *s, dtype=dtype) for s in [(9, 48), (70, 96), (70,)])
    out = eager.mrc_pool(h.double(), subject, object_, weight.double(), bias.double())

    def results(module, *tensors):
        args, seen = (tensors[0], subject, object_, *tensors[1:]), out.to(tensors[0].dtype)
        return module.mrc_pool(*args), *module.mrc_pool_backward(wave(seen), *args, seen)

    found, wanted = (
        results(kernels, h, weight, bias),
        results(eager, *(x.double() for x in (h, weight, bias))),
    )
    assert_close("mrc_pool", found, wanted, dtype, times=3)


def test_nan_passes_the_relu():
    h, rows = torch.full((1, 16), torch.nan, device=DEVICE), torch.zeros(1, dtype=torch.int64, device=DEVICE)
    weight = torch.ones(16, 32, device=DEVICE)
    assert kernels.mrc_pool(h, rows, rows, weight, weight[:, 0]).isnan().all()


def test_ops_run_on_this_backend(monkeypatch):
    monkeypatch.setenv("RELVLM_KERNELS", "triton")
    assert backends.chosen(DEVICE).name == "triton"
    tensors, index = region_case(torch.float32)
    q, k, v = (x.requires_grad_() for x in tensors)
    ops.region_attention(q, k, v, *index, scale=0.2).sum().backward()
    *_, dv = eager.region_attention_backward(
        torch.ones_like(q), *(x.detach() for x in (q, k, v)),
        *eager.region_attention(q, k, v, *index, 0.2, 0.0, None), *index, 0.2, 0.0, None,
    )  # fmt: skip
    torch.testing.assert_close(v.grad, dv)


def test_refuses_float64_and_wide_heads(monkeypatch):
    monkeypatch.setenv("RELVLM_KERNELS", "triton")
    tensors, index = varlen_case(torch.float64)
    with pytest.raises(RuntimeError, match=r"no kernels for torch\.float64"):
        ops.varlen_attention(*tensors, *index)
    with pytest.raises(ValueError, match="heads of 300"):
        ops.varlen_attention(*varlen_case(torch.float32, width=300)[0], *index)


def test_refuses_inputs_that_do_not_match():
    (q, k, v), (cu_q, cu_k) = varlen_case(torch.float32)
    with pytest.raises(ValueError, match="expected one dtype"):
        kernels.varlen_attention(q, k.half(), v, cu_q, cu_k, 0.2, 0.0, None)
    with pytest.raises(ValueError, match="6 offsets of queries, 5 of keys"):
        kernels.varlen_attention(q, k, v, cu_q, cu_k[:-1], 0.2, 0.0, None)
