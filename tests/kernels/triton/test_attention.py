"""Attention in Triton against the reference in fp64: in its interpreter on CPU tensors, or on a CUDA device.

Not with bfloat16 in the interpreter, which gets that wrong.
"""

from dataclasses import replace

import pytest
import torch
from support.attention_cases import NAMES, case, moved, outside_case, region_case, results, varlen_case, wave
from support.on_device import DEVICE, INTERPRETED, error, started, triton_marks
from torch.nn.functional import scaled_dot_product_attention

from relvlm_kernels import Regions, ops, reference

kernels = pytest.importorskip("relvlm_kernels.triton", reason="triton is not installed")
pytestmark = triton_marks()

DTYPES = [torch.float32, torch.float16] + ([] if INTERPRETED else [torch.bfloat16])
SEED = -0x123456789ABCDEF0
SMALL = {"heads": 2, "groups": 8, "longest": 40}


def on_device(op, dtype, width=32, make=case, **options):
    """A small case: the interpreter is slow."""
    tensors, index = make(op, width, **(SMALL if op == "region_attention" else {"heads": 2}) | options)
    return [x.to(DEVICE, dtype) for x in tensors], moved(index, DEVICE)


def found_and_wanted(op, tensors, index, dropout=0.0):
    """Of the kernels, and of the reference in fp64."""
    seed = torch.tensor([SEED], device=DEVICE) if dropout else None
    exact = [x.double() for x in tensors]
    return (results(m, op, x, index, 0.2, dropout, seed) for m, x in ((kernels, tensors), (reference, exact)))


def by_sdpa(tensors, index, scale=0.2):
    """The same from PyTorch's own attention, a group (or sequence) at a time, the mean token appended for real."""
    q, k, v = (x.detach().clone().requires_grad_() for x in tensors)
    out = torch.zeros_like(q)
    for rows, seen in groups(*index) if len(index) == 1 else sequences(*index):
        parts = (x.transpose(0, 1)[None] for x in (q[rows], seen(k), seen(v)))
        out[rows] = scaled_dot_product_attention(*parts, scale=scale)[0].transpose(0, 1)
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
    """Those with queries and keys."""
    for q_rows, k_rows in zip(cu_q.unfold(0, 2, 1).tolist(), cu_k.unfold(0, 2, 1).tolist(), strict=True):
        if q_rows[0] < q_rows[1] and k_rows[0] < k_rows[1]:
            yield slice(*q_rows), lambda x, k_rows=k_rows: x[slice(*k_rows)]


def assert_close(found, wanted, dtype, times):
    """Equal to rounding: errors of a few units in the last place, and infinities in the same places."""
    for name, a, b in zip(NAMES, found, wanted, strict=True):
        assert a.dtype == (torch.float32 if name == "lse" else dtype), name
        if name == "lse":
            assert torch.equal(a.isneginf(), b.isneginf())
            a, b = (x.masked_fill(x.isneginf(), 0) for x in (a, b))
        assert error(a, b) < times * torch.finfo(dtype).eps, name


CASES = [
    ("region_attention", {}, torch.float32, 0.0),
    ("region_attention", {"width": 64, "heads": 1}, torch.float16, 0.3),
    ("region_attention", {"width": 80, "prefix": 0, "heads": 1}, torch.float16, 0.0),
    ("region_attention", {"grid": (31, 2), "prefix": 5, "heads": 1}, torch.float32, 0.3),  # no words of bits
    ("varlen_attention", {"width": 96, "heads": 1}, torch.float32, 0.3),
    ("varlen_attention", {"width": 128, "heads": 1}, torch.float16, 0.0),
]
ON_GPU_ONLY = [
    *[("region_attention", {"width": w, "grid": (14, 14)}, torch.bfloat16, 0.0) for w in (32, 64, 80, 96, 128)],
    *[("region_attention", {"width": 64, "grid": (24, 24)}, dtype, 0.1) for dtype in DTYPES],
    ("region_attention", {"width": 64, "grid": (32, 32)}, torch.bfloat16, 0.0),
    ("region_attention", {"width": 128}, torch.float32, 0.0),
    ("varlen_attention", {"width": 64}, torch.bfloat16, 0.1),
]


@pytest.mark.parametrize(("op", "options", "dtype", "dropout"), CASES + (ON_GPU_ONLY if not INTERPRETED else []))
def test_equals_fp64_reference(op, options, dtype, dropout, poisoned):
    """Output, lse and every gradient, with the very keep-mask of the reference where there is dropout.

    With rows and keys of nobody before and after.
    """
    tensors, index = on_device(op, dtype, make=outside_case, **options)
    hardware = 4 if dtype == torch.float32 and not INTERPRETED else 1  # its exp2 and log2 are approximate
    assert_close(*found_and_wanted(op, tensors, index, dropout), dtype, times=8 * hardware)


@pytest.mark.parametrize("op", ["region_attention", "varlen_attention"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_error_is_at_most_twice_that_of_pytorch_attention(op, dtype, poisoned):
    tensors, index = on_device(op, dtype, heads=1)
    out, _, *gradients = results(kernels, op, tensors, index, 0.2)
    wanted = by_sdpa([x.double() for x in tensors], index)
    theirs = by_sdpa(tensors, index)
    for name, a, b, exact in zip("oqkv", [out, *gradients], theirs, wanted, strict=True):
        assert error(a, exact) <= 2 * error(b, exact), name


def test_image_without_group_gets_zero_gradients(poisoned):
    tensors, index = on_device("region_attention", torch.float32, heads=1)
    *_, dk, dv = results(kernels, "region_attention", tensors, index, 0.2)
    assert not dk[3].any() and not dv[3].any() and dk[:3].any((1, 2, 3)).all()


def test_no_queries(poisoned):
    (_, k, v), (regions,) = on_device("region_attention", torch.float32)
    empty = Regions.whole(torch.zeros(1).int().to(DEVICE), regions.image[:0], regions.grid)
    out, lse, dq, dk, dv = results(kernels, "region_attention", (k[0, :0], k, v), (empty,), 0.2)
    assert out.shape == dq.shape == (0, *k.shape[2:]) and lse.shape == (0, k.shape[2])
    assert not dk.any() and not dv.any()


def test_no_sequences(poisoned):
    """All rows are nobody's."""
    q, none = torch.ones(3, 1, 16, device=DEVICE), torch.tensor([0], device=DEVICE)
    out, lse, *gradients = results(kernels, "varlen_attention", (q, q, q), (none, none), 0.2)
    assert not out.any() and lse.isneginf().all() and not any(x.any() for x in gradients)


@pytest.mark.parametrize("op", ["region_attention", "varlen_attention"])
def test_programs_are_as_many_as_tiles_on_average(monkeypatch, op):
    """Of 16 queries or 32 keys, for each of 2 images or sequences and 3 heads."""
    found = started(monkeypatch)
    q, k = torch.zeros(100, 3, 20, device=DEVICE), torch.zeros(2, 36, 3, 20, device=DEVICE)
    offsets, image = torch.tensor([0, 90, 100], device=DEVICE), torch.tensor([1, 0], device=DEVICE)
    index, keys = (Regions.whole(offsets, image, (5, 7)),), k
    if op == "varlen_attention":
        index, keys = (offsets, torch.tensor([0, 60, 72], device=DEVICE)), k.flatten(0, 1)
    results(kernels, op, (q, keys, keys), index, 0.2)
    programs = [(name, count) for name, count, _ in found if name != "plan"]
    queries = 2 * 3 * 4
    assert programs == [
        ("attention_forward", queries), ("attention_backward_q", queries), ("attention_backward_kv", 2 * 3 * 2),
    ]  # fmt: skip


@pytest.mark.parametrize(("width", "held"), [(8, 16), (16, 16), (17, 32), (80, 128), (128, 128)])
def test_heads_are_held_in_the_next_power_of_2(monkeypatch, width, held):
    found = started(monkeypatch)
    q, cu = torch.zeros(3, 1, width, device=DEVICE), torch.tensor([0, 3], device=DEVICE)
    kernels.varlen_attention(q, q, q, cu, cu, 0.2, 0.0, None)
    assert found[0][2]["BLOCK_D"] == held


@pytest.mark.parametrize(("word", "signed"), [(0, 0), (2**31 - 1, 2**31 - 1), (2**31, -(2**31)), (2**32 - 1, -1)])
def test_a_threshold_keeps_its_bits(word, signed):
    assert kernels.attention._signed(word) == signed


def test_strided_inputs(poisoned):
    """Slices of one joint projection, as the encoders make them, and a layout that needs a copy."""
    (q, k, v), index = on_device("region_attention", torch.float32, heads=1)
    wanted = results(kernels, "region_attention", (q, k, v), index, 0.2)
    joint = torch.stack([k, v], 2)
    strided = (q.mT.contiguous().mT, joint[:, :, 0], joint[:, :, 1])
    found = results(kernels, "region_attention", strided, index, 0.2)
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients_by_images_into_a_small_buffer(dtype, poisoned):
    """One image, then three: what is written is the whole, groups of other images stay as they were."""
    (q, k, v), (regions,) = on_device("region_attention", dtype, heads=1)
    wanted = results(kernels, "region_attention", (q, k, v), (regions,), 0.2)
    found = q.new_full((len(q), 2, *q.shape[1:]), torch.nan), k.new_empty(4, k.shape[1], 2, *k.shape[2:])
    for first, last in ((0, 1), (1, 4)):
        part = replace(regions, image=regions.image - first)
        to = found[0][:, 1], *found[1][first:last].unbind(2)
        args = wave(q), q, k[first:last], v[first:last], *wanted[:2], part, 0.2, 0.0, None
        kernels.region_attention_backward(*args, to)
    torch.testing.assert_close((found[0][:, 1], *found[1].unbind(2)), wanted[2:], rtol=0, atol=0)
    assert found[0][:, 0].isnan().all()


def test_same_bits_every_time():
    tensors, index = on_device("region_attention", DTYPES[-1], heads=1)
    first, second = (results(kernels, "region_attention", tensors, index, 0.2) for _ in range(2))
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_large_scores_do_not_overflow(poisoned):
    (q, k, v), index = on_device("varlen_attention", torch.float32, heads=1)
    found, wanted = found_and_wanted("varlen_attention", (q * 100, k * 100, v), index)
    queries = index[0][-2]  # the last sequence has no keys
    assert all(x[:queries].isfinite().all() for x in found[:3])
    assert error(found[0], wanted[0]) < 1e-3  # scores of 1e5 are off by 1e-2 themselves


def test_ops_run_on_this_backend(monkeypatch):
    monkeypatch.setenv("RELVLM_KERNELS", "triton")
    tensors, index = on_device("region_attention", torch.float32, heads=1)
    started = []
    start = kernels.launch.start
    monkeypatch.setattr(kernels.launch, "start", lambda *args: started.append(args[0]) or start(*args))
    q, k, v = (x.requires_grad_() for x in tensors)
    out = ops.region_attention(q, k, v, *index, scale=0.2)
    (dv,) = torch.autograd.grad(out, v, wave(out))
    wanted = results(reference, "region_attention", [x.detach() for x in tensors], index, 0.2)[-1]
    torch.testing.assert_close(dv, wanted)
    assert len(started) == 5  # a plan each way, one kernel forward, two backward


def test_refuses_float64_and_wide_heads(monkeypatch):
    monkeypatch.setenv("RELVLM_KERNELS", "triton")
    tensors, index = varlen_case(16)
    with pytest.raises(RuntimeError, match=r"no kernels for torch\.float64"):
        ops.varlen_attention(*(x.to(DEVICE) for x in tensors), *moved(index, DEVICE))
    wide = [x.float().to(DEVICE) for x in varlen_case(300, heads=1)[0]]
    with pytest.raises(RuntimeError, match="no kernels for heads of 300"):
        ops.varlen_attention(*wide, *moved(index, DEVICE))


def test_region_case_has_what_these_tests_need():
    """An image without a group and a group without tokens, in the small case as well."""
    _, (regions,) = region_case(32, **SMALL)
    assert sorted(set(regions.image.tolist())) == [0, 1, 2] and (regions.offsets.diff() == 0).any()
