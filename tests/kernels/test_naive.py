"""What every backend must equal: worked out by hand; and equalled at sizes that nobody would think of."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.attention_cases import small_qkv, small_regions

import relvlm_kernels
from relvlm_kernels import Regions, backends, mrc_pool, naive, reference, region_attention


def test_region_attention_is_attention_to_the_keys_that_a_group_sees():
    """Worked out by hand for the group with prefix, the lower two rows of image 0, and their mean."""
    q, k, v = (x.detach() for x in small_qkv())
    seen = [torch.cat([x[0, :1], x[0, 5:13], x[0, 5:13].mean(0, keepdim=True)]) for x in (k, v)]
    weights = torch.einsum("qhd,shd->hqs", q[6:10], seen[0]).mul(8**-0.5).softmax(-1)
    wanted = torch.einsum("hqs,shd->qhd", weights, seen[1])
    regions = small_regions()
    regions.box[4] = torch.tensor([0, 1, 4, 3])
    for op in (region_attention, naive.region_attention):
        torch.testing.assert_close(op(q, k, v, regions)[6:10], wanted)


def offsets(lengths, before=0):
    return torch.tensor([0, *lengths]).cumsum(0).add(before).int()


def floats(*shape, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, dtype=torch.float64, generator=generator).requires_grad_()


ODD = settings(max_examples=40, deadline=None, derandomize=True)
SMALL = st.integers(0, 3)
HEADS = st.tuples(st.integers(1, 3), st.integers(1, 9))  # and their width
OUTSIDE = st.tuples(st.integers(0, 2), st.integers(0, 2))  # rows before and after those of groups


@st.composite
def regions(draw):
    """Of so many images, with so many prefix tokens: boxes of any size, groups without tokens, no group at all."""
    rows, columns, images = draw(st.integers(1, 4)), draw(st.integers(1, 4)), draw(SMALL)
    groups = draw(st.integers(0, 5)) if images else 0
    lengths = draw(st.lists(SMALL, min_size=groups, max_size=groups))
    sides = [draw(st.tuples(st.integers(0, n - 1), st.integers(1, n))) for n in [columns, rows] * groups]
    spans = [(min(a, b - 1), max(a + 1, b)) for a, b in sides]
    box = [[x[0], y[0], x[1], y[1]] for x, y in zip(spans[::2], spans[1::2], strict=True)]
    image = draw(st.lists(st.integers(0, max(0, images - 1)), min_size=groups, max_size=groups))
    flags = torch.tensor(draw(st.lists(st.booleans(), min_size=2 * groups, max_size=2 * groups))).bool().view(2, -1)
    before, after = draw(OUTSIDE)
    found = Regions(
        offsets(lengths, before),
        torch.tensor(image).int(),
        torch.tensor(box).int().view(-1, 4),
        *flags,
        (rows, columns),
    )
    return found, images, draw(SMALL) + rows * columns, before + sum(lengths) + after


def assert_equals_naive(op, tensors, *index):
    """With gradients, on both backends for CPU tensors."""
    wanted = getattr(naive, op)(*tensors, *index)
    grad = torch.linspace(-1, 1, wanted.numel(), dtype=wanted.dtype).view_as(wanted)
    wanted = wanted, *gradients(wanted, tensors, grad)
    for name in ("cpu", "reference"):
        if not backends.BACKENDS[name].missing:
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("RELVLM_KERNELS", name)
                found = getattr(relvlm_kernels, op)(*tensors, *index)
            torch.testing.assert_close((found, *gradients(found, tensors, grad)), wanted)


def gradients(out, tensors, grad):
    """Zeros where `out` depends on none."""
    if not out.requires_grad:
        return tuple(map(torch.zeros_like, tensors))
    return torch.autograd.grad(out, tensors, grad, allow_unused=True, materialize_grads=True)


@ODD
@given(regions(), HEADS)
def test_region_attention_of_odd_sizes(case, heads):
    found, images, tokens, rows = case
    q, k, v = floats(rows, *heads, seed=0), *(floats(images, tokens, *heads, seed=n) for n in (1, 2))
    assert_equals_naive("region_attention", (q, k, v), found)


@ODD
@given(st.lists(st.tuples(SMALL, SMALL), max_size=5), HEADS, OUTSIDE, OUTSIDE)
def test_varlen_attention_of_odd_sizes(lengths, heads, outside_q, outside_k):
    queries, keys = ([pair[i] for pair in lengths] for i in (0, 1))
    q = floats(sum(queries) + sum(outside_q), *heads, seed=0)
    k, v = (floats(sum(keys) + sum(outside_k), *heads, seed=n) for n in (1, 2))
    assert_equals_naive("varlen_attention", (q, k, v), offsets(queries, outside_q[0]), offsets(keys, outside_k[0]))


@ODD
@given(regions(), st.integers(1, 9))
def test_box_mean_of_odd_sizes(case, width):
    found, images, tokens, _ = case
    assert_equals_naive("box_mean", (floats(images, tokens, width, seed=0),), found.box, found.image, found.grid)


@ODD
@given(st.integers(0, 4), st.integers(0, 9), st.integers(1, 5), st.integers(1, 4), st.integers(0, 99))
def test_mrc_pool_of_odd_sizes(rows, triplets, width, features, seed):
    triplets = triplets if rows else 0
    picked = torch.randint(max(1, rows), (2, triplets), generator=torch.Generator().manual_seed(seed))
    h, weight, bias = floats(rows, width, seed=0), floats(features, 2 * width, seed=1), floats(features, seed=2)
    wanted = naive.mrc_pool(h, *picked, weight, bias)
    found = mrc_pool(h, *picked, weight, bias)
    grad = torch.linspace(-1, 1, wanted.numel(), dtype=wanted.dtype).view_as(wanted)
    results = ((out, *gradients(out, (h, weight, bias), grad)) for out in (found, wanted))
    torch.testing.assert_close(*results)


def test_dropout_keeps_the_weights_that_it_keeps_in_the_fast_one():
    """Heads and their width differ: the mask is drawn by head."""
    q, k, v = (floats(size, 3, 4, seed=i).float() for i, size in enumerate((7, 6, 6)))
    cu_q, cu_k, seed = offsets([4, 3]), offsets([2, 4]), torch.tensor([11])
    plain, dropped = (naive.varlen_attention(q, k, v, cu_q, cu_k, 0.5, p, seed) for p in (0.0, 0.5))
    fast, _ = reference.varlen_attention(q, k, v, cu_q, cu_k, 0.5, 0.5, seed)
    torch.testing.assert_close(dropped, fast)
    assert not torch.allclose(dropped, plain)
