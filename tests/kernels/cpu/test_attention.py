"""Attention in C++ against the reference in fp64: every gradient, odd sizes and dtypes, any layout, any threads."""

from dataclasses import replace

import pytest
import torch
from support.attention_cases import NAMES, case, region_case, results, rms, varlen_case, wave
from support.closeness import assert_as_close_as

from relvlm_kernels import Regions, backends, cpu, ops, reference

MISSING = backends.BACKENDS["cpu"].missing
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"cpu kernels: {MISSING}")

OPS = ["region_attention", "varlen_attention"]
WIDTHS = [5, 8, 16, 32, 64, 80, 96]


def without_lse(found):
    return {name: x for name, x in zip(NAMES, found, strict=True) if name != "lse"}


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("width", WIDTHS)
def test_equals_fp64_reference(op, width, instructions, threads, poisoned):
    tensors, index = case(op, width)
    wanted = results(reference, op, tensors, index, 0.3)
    torch.testing.assert_close(results(cpu, op, tensors, index, 0.3), wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("width", WIDTHS)
def test_fp32_error_is_at_most_twice_that_of_the_reference(op, width, instructions, poisoned):
    tensors, index = case(op, width)
    single = [x.float() for x in tensors]
    wanted = results(reference, op, [x.double() for x in single], index, width**-0.5)
    found = (results(module, op, single, index, width**-0.5) for module in (cpu, reference))
    assert_as_close_as(*map(without_lse, (*found, wanted)))


def sdpa(tensors, index, scale):
    """PyTorch's own attention in the tensors' dtype, and its gradients: keys gathered for each group or sequence."""
    q, k, v = (x.clone().requires_grad_() for x in tensors)
    cu_q, cu_k = index
    outs = []
    for a, b, c, d in zip(cu_q, cu_q[1:], cu_k, cu_k[1:], strict=False):
        parts = (x.transpose(0, 1)[None] for x in (q[a:b], k[c:d], v[c:d]))
        outs.append(torch.nn.functional.scaled_dot_product_attention(*parts, scale=scale)[0].transpose(0, 1))
    out = torch.cat(outs)
    return out.detach(), *torch.autograd.grad(out, (q, k, v), wave(out))


def with_keys(tensors, index):
    """Without the last sequence, which has no keys: the memory-efficient SDPA gives NaN there."""
    (q, k, v), (cu_q, cu_k) = tensors, index
    return [q[: cu_q[-2]], k, v], (cu_q[:-1], cu_k[:-1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("width", [32, 64, 80, 96, 128])
def test_error_is_at_most_twice_that_of_pytorchs_attention(width, dtype, instructions, poisoned):
    tensors, index = with_keys(*varlen_case(width))
    tensors = [x.to(dtype) for x in tensors]
    wanted = results(reference, "varlen_attention", [x.double() for x in tensors], index, width**-0.5)
    ours = without_lse(results(cpu, "varlen_attention", tensors, index, width**-0.5))
    theirs = dict(zip(ours, sdpa(tensors, index, width**-0.5), strict=True))
    assert all(x.dtype == dtype for x in ours.values())
    assert_as_close_as(ours, theirs, without_lse(wanted))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_fp32_rounded_once(dtype, instructions, poisoned):
    """Region attention of rounded inputs: what fp32 gives, but for the rounding of the result."""
    tensors, index = case("region_attention", 24)
    tensors = [x.to(dtype) for x in tensors]
    wanted = results(cpu, "region_attention", [x.float() for x in tensors], index, 0.2)
    found = results(cpu, "region_attention", tensors, index, 0.2)
    torch.testing.assert_close(found[0], wanted[0].to(dtype), rtol=2 * torch.finfo(dtype).eps, atol=1e-6)
    for a, b in zip(found, wanted, strict=True):
        assert rms(a.float() - b) <= torch.finfo(dtype).eps * rms(b)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_keeps_infinities_zeros_and_the_smallest_numbers(dtype, instructions):
    """One key a sequence: the values come out as they went in."""
    info = torch.finfo(dtype)
    values = [0.0, info.max, info.tiny, info.smallest_normal / 8, -1.0, torch.inf, -torch.inf, torch.nan]
    v = torch.tensor(values, dtype=dtype).view(8, 1, 1)
    rows = torch.arange(9).int()
    out, _ = cpu.varlen_attention(torch.zeros_like(v), torch.zeros_like(v), v, rows, rows, 1.0, 0.0, None)
    torch.testing.assert_close(out, v, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("op", OPS)
def test_dropout_equals_the_reference(op, dtype, instructions, poisoned):
    """The same mask to the last bit, forward and backward, with the mean token, at a seed of 64 bits."""
    tensors, index = case(op, 16)
    tensors, options = [x.to(dtype) for x in tensors], (0.3, 0.4, torch.tensor([-(2**61) + 12345]))
    found, plain = (results(module, op, tensors, index, *options) for module in (cpu, reference))
    if dtype == torch.float64:
        torch.testing.assert_close(found, plain, rtol=1e-10, atol=1e-12)
    else:
        truth = results(reference, op, [x.double() for x in tensors], index, *options)
        assert_as_close_as(*map(without_lse, (found, plain, truth)))


@pytest.mark.parametrize(
    "options",
    [
        {"prefix": 0}, {"prefix": 3}, {"grid": (1, 1)}, {"grid": (14, 14), "groups": 40},
        {"grid": (3, 33), "images": 2}, {"grid": (24, 24), "images": 2, "heads": 1},
        {"grid": (32, 32), "images": 2, "heads": 1},
    ],
)  # fmt: skip
def test_grids_and_prefixes(options, instructions, poisoned):
    tensors, index = case("region_attention", 16, **options)
    wanted, found = (results(module, "region_attention", tensors, index, 0.25) for module in (reference, cpu))
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)


def test_large_scores_do_not_overflow(instructions):
    """They are off by 1e-3 themselves, hence the large errors."""
    tensors, index = with_keys(*case("varlen_attention", 16))
    single = [x.float() * 30 for x in tensors]
    wanted = results(reference, "varlen_attention", [x.double() for x in single], index, 1.0)
    found = [results(module, "varlen_attention", single, index, 1.0) for module in (cpu, reference)]
    for a, b, exact in zip(*found, wanted, strict=True):
        assert rms(a - exact) < 2 * rms(b - exact) < 0.5 * exact.abs().max()


def test_nan_in_a_key_reaches_its_queries_alone():
    tensors, (regions,) = case("region_attention", 16)
    q, k, v = (x.float() for x in tensors)
    k[0] = torch.nan
    out, _ = cpu.region_attention(q, k, v, regions, 0.25, 0.0, None)
    of_image = (regions.image == 0).repeat_interleave(regions.offsets.diff())
    assert out[of_image].isnan().all()
    assert not out[~of_image].isnan().any()


LAYOUTS = {
    "int32": lambda x: x,
    "int64": lambda x: x.long() if x.dtype == torch.int32 else x,
    "columns": lambda x: torch.stack([x, x], -1)[..., 0],
}


@pytest.mark.parametrize("copied", LAYOUTS.values(), ids=LAYOUTS)
def test_index_tensors_are_read_anew(copied):
    """Whoever wrote into them said nothing, as compiled code does."""
    tensors, (regions,) = case("region_attention", 16)
    others = region_case(16, seed=1)[1][0]
    regions, others = regions.map(copied), replace(others, offsets=regions.offsets)
    before = cpu.region_attention(*tensors, regions, 0.25, 0.0, None)
    for name in ("image", "box", "prefix", "mean"):
        getattr(regions, name).numpy()[:] = getattr(others, name)
    found = cpu.region_attention(*tensors, regions, 0.25, 0.0, None)
    wanted = cpu.region_attention(*tensors, others, 0.25, 0.0, None)
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)
    assert not torch.equal(found[0], before[0])


def test_strided_inputs(poisoned):
    """Slices of one joint projection, as the encoders make them, and layouts that need a copy."""
    (q, k, v), index = case("region_attention", 16)
    wanted = results(reference, "region_attention", (q, k, v), index, 0.25)
    joint = torch.stack([k, v], 2)
    sliced = (torch.stack([q, q], 1)[:, 1], joint[:, :, 0], joint[:, :, 1])
    heads_first = (q.transpose(0, 1).contiguous().transpose(0, 1), k.mT.contiguous().mT, v.flip(0).flip(0))
    gaps = (q, torch.cat([k, k], 1)[:, : k.shape[1]], v)
    for inputs in (sliced, heads_first, gaps):
        torch.testing.assert_close(results(cpu, "region_attention", inputs, index, 0.25), wanted)


def test_expanded_gradient():
    (q, k, v), index = case("varlen_attention", 16)
    saved = q, k, v, *cpu.varlen_attention(q, k, v, *index, 0.25, 0.0, None), *index, 0.25, 0.0, None
    found = cpu.varlen_attention_backward(torch.ones((), dtype=q.dtype).expand(q.shape), *saved)
    wanted = cpu.varlen_attention_backward(torch.ones_like(q), *saved)
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)


def test_one_token_per_image_with_any_stride(poisoned):
    (q, k, v), index = case("region_attention", 16, grid=(1, 1), prefix=0)
    odd = k.as_strided(k.shape, (k.stride(0), 999, *k.stride()[2:]))
    wanted = results(reference, "region_attention", (q, k, v), index, 0.25)
    torch.testing.assert_close(results(cpu, "region_attention", (q, odd, v), index, 0.25), wanted)


def test_same_bits_whatever_the_threads():
    tensors, index = case("region_attention", 32)
    before = torch.get_num_threads()
    found = []
    for count in (1, 4):
        torch.set_num_threads(count)
        found.append(results(cpu, "region_attention", tensors, index, 0.2))
    torch.set_num_threads(before)
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)


@pytest.mark.parametrize("op", OPS)
def test_gradcheck(op):
    if op == "region_attention":
        tensors, (regions,) = region_case(3, grid=(2, 2), images=2, groups=7, heads=1)
        regions = regions.pick(torch.tensor([0, 3, 5]), torch.tensor([0, 2, 3, 5]).int())
        inputs, index = [tensors[0][:5], *tensors[1:]], (regions,)
    else:
        inputs = [torch.randn(n, 1, 3, dtype=torch.float64) for n in (5, 7, 7)]
        index = torch.tensor([0, 2, 2, 5]).int(), torch.tensor([0, 4, 5, 7]).int()
    assert backends.chosen("cpu", torch.float64, 3).name == "cpu"
    inputs = [x.requires_grad_() for x in inputs]
    assert torch.autograd.gradcheck(lambda *x: getattr(ops, op)(*x, *index), inputs)


def test_nothing_to_do(poisoned):
    (_, k, v), _ = case("region_attention", 16)
    regions = Regions.whole(torch.zeros(1).int(), torch.zeros(0).int(), (5, 7))
    found = results(cpu, "region_attention", (k.new_zeros(0, 3, 16), k, v), (regions,), 0.25)
    out, _, dq, dk, dv = found
    assert out.shape == dq.shape == (0, 3, 16)
    assert not dk.any() and not dv.any()


def test_gradients_cannot_go_where_rows_are_uneven():
    (q, k, _), (regions,) = case("region_attention", 8)
    args = q, q, k, k, q, q[..., 0].clone(), regions, 0.3, 0.0, None
    gaps = torch.cat([k, k], 1)[:, : k.shape[1]]
    with pytest.raises(ValueError, match=r"dk .*no kernel for strides"):
        cpu.region_attention_backward(*args, (q.clone(), gaps, k.clone()))
