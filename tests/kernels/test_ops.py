"""The four ops against their naive statement in fp64, their gradients, and `torch.library`'s own checks."""

import pytest
import torch
from support.attention_cases import SMALL_GRID as GRID
from support.attention_cases import small_qkv, small_regions
from support.op_arguments import ARGUMENTS, call
from torch.library import opcheck

from relvlm_kernels import (
    Regions,
    backends,
    box_mean,
    mrc_pool,
    naive,
    region_attention,
    varlen_attention,
)

SEED = torch.tensor([2**40 + 7])


def assert_equal_with_gradients(found, wanted, inputs):
    torch.testing.assert_close(found, wanted)
    grad = torch.linspace(-1, 1, found.numel(), dtype=found.dtype).view_as(found)
    torch.testing.assert_close(*(torch.autograd.grad(out, inputs, grad) for out in (found, wanted)))


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_region_attention_equals_naive_with_gradients(backend, dropout):
    tensors = small_qkv()
    options = {"dropout": dropout, "seed": SEED}
    outs = (op(*tensors, small_regions(), **options) for op in (region_attention, naive.region_attention))
    assert_equal_with_gradients(*outs, tensors)


def test_keys_outside_every_box_get_no_gradient(backend):
    q, k, v = small_qkv()
    dv = torch.autograd.grad(region_attention(q, k, v, small_regions()).sum(), v)[0]
    assert dv[1].abs().max() == 0
    assert dv[0, 1:5].abs().max() == 0  # image 0: its groups with tokens see patch rows 1 and 2 only
    assert dv[0, 5:9].abs().min() > 0


def test_region_attention_without_tokens_gives_nothing_and_zero_gradients(backend):
    _, k, v = small_qkv()
    regions = Regions.whole(torch.zeros(1).int(), torch.zeros(0).int(), GRID)
    q = torch.zeros(0, 2, 8, dtype=torch.float64, requires_grad=True)
    out = region_attention(q, k, v, regions)
    assert out.shape == (0, 2, 8) and out.dtype == torch.float64
    dq, dk, dv = torch.autograd.grad(out.sum(), (q, k, v))
    assert dq.shape == q.shape and dk.shape == k.shape and not dk.any() and not dv.any()


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_varlen_attention_equals_naive_with_gradients(backend, dropout):
    torch.manual_seed(1)
    tensors = [torch.randn(n, 2, 4, dtype=torch.float64, requires_grad=True) for n in (7, 9, 9)]
    index = torch.tensor([0, 2, 2, 7]).int(), torch.tensor([0, 4, 5, 9]).int()
    options = {"dropout": dropout, "seed": SEED}
    outs = (op(*tensors, *index, **options) for op in (varlen_attention, naive.varlen_attention))
    assert_equal_with_gradients(*outs, tensors)


def test_box_mean_equals_naive_with_gradients(backend):
    torch.manual_seed(2)
    x = torch.randn(3, 13, 5, dtype=torch.float64, requires_grad=True)
    r = small_regions()
    outs = [op(x, r.box, r.image, GRID) for op in (box_mean, naive.box_mean)]
    assert_equal_with_gradients(*outs, (x,))
    torch.testing.assert_close(outs[0][3], x[2, 1:].view(3, 4, 5)[0:2, 1:3].mean((0, 1)))


@pytest.mark.parametrize("triplets", [3, 11], ids=["fewer than rows", "more than rows"])
def test_mrc_pool_equals_naive_with_gradients(triplets):
    torch.manual_seed(4)
    inputs = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in [(5, 3), (4, 6), (4,)]]
    rows = torch.randint(5, (2, triplets))
    outs = (op(inputs[0], *rows, *inputs[1:]) for op in (mrc_pool, naive.mrc_pool))
    assert_equal_with_gradients(*outs, inputs)


def test_lse_of_a_region_includes_prefix_and_mean(backend):
    q, k, v = (x.detach() for x in small_qkv())
    _, lse = backends.BACKENDS[backend].ops.region_attention(q, k, v, small_regions(), 0.3, 0.0, None)
    box = k[0, 5:9]  # group 4: the second row of image 0
    seen = torch.cat([k[0, :1], box, box.mean(0, keepdim=True)])
    torch.testing.assert_close(lse[6:10], torch.einsum("qhd,shd->qhs", q[6:10], seen).mul(0.3).logsumexp(-1))


def test_lse_without_keys_is_minus_infinity_and_the_output_zero(backend):
    q, k, v = (x.detach() for x in small_qkv())
    cu_q, cu_k = torch.tensor([0, 5, 12]).int(), torch.tensor([0, 39, 39]).int()
    inputs = q, k.flatten(0, 1), v.flatten(0, 1), cu_q, cu_k, 0.3, 0.0, None
    out, lse = backends.BACKENDS[backend].ops.varlen_attention(*inputs)
    scores = torch.einsum("qhd,shd->qhs", q, inputs[1]).mul(0.3)
    torch.testing.assert_close(lse[:5], scores[:5].logsumexp(-1))
    assert (lse[5:] == -torch.inf).all() and not out[5:].any()


def test_gradient_of_box_mean_spreads_over_the_box():
    torch.manual_seed(2)
    x = torch.randn(3, 13, 5, dtype=torch.float64, requires_grad=True)
    r = small_regions()
    assert torch.autograd.gradcheck(lambda x: box_mean(x, r.box, r.image, GRID), (x,))


def test_opcheck(backend):
    q, k, v = small_qkv()
    r = small_regions()
    index = r.offsets, r.image, r.box, r.prefix, r.mean, *GRID
    cu = torch.tensor([0, 4, 12], dtype=torch.int32)
    for options in ((0.0, None), (0.3, SEED)):
        opcheck(torch.ops.relvlm.region_attention.default, (q, k, v, *index, 0.3, *options))
        opcheck(torch.ops.relvlm.varlen_attention.default, (q, q.detach(), q.detach(), cu, cu, 0.3, *options))
    x = torch.randn(3, 13, 5, dtype=torch.float64, requires_grad=True)
    opcheck(torch.ops.relvlm.box_mean.default, (x, r.box, r.image, *GRID))
    h = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    rows = torch.tensor([0, 5, 5])
    weight, bias = torch.randn(3, 8, dtype=torch.float64, requires_grad=True), torch.zeros(3).double()
    opcheck(torch.ops.relvlm.mrc_pool.default, (h, rows, rows.flip(0), weight, bias))


def test_gradcheck_of_mrc_pool():
    torch.manual_seed(3)
    h, weight, bias = (torch.randn(*s, dtype=torch.float64, requires_grad=True) for s in [(5, 3), (4, 6), (4,)])
    subject, object_ = torch.tensor([0, 0, 4]), torch.tensor([1, 2, 0])
    assert torch.autograd.gradcheck(lambda *x: mrc_pool(x[0], subject, object_, *x[1:]), (h, weight, bias))


def leaves(op):
    """The op's arguments, those of floating point as leaves, and these by name."""
    floats = {n: x for n, x in ARGUMENTS[op].items() if isinstance(x, torch.Tensor) and x.is_floating_point()}
    floats = {n: x.clone().requires_grad_() for n, x in floats.items()}
    return ARGUMENTS[op] | floats, floats


def gradients(op, arguments, wanted, grad):
    return torch.autograd.grad(call(op, arguments), list(wanted.values()), grad)


@pytest.mark.parametrize("op", ARGUMENTS)
def test_a_gradient_of_any_layout_or_dtype_is_that_of_a_dense_one(backend, op):
    arguments, floats = leaves(op)
    ones = torch.ones_like(call(op, arguments))
    for grad in (ones[:1, ..., :1].expand_as(ones), ones.mT.contiguous().mT, ones.double(), ones.half()):
        torch.testing.assert_close(gradients(op, arguments, floats, grad), gradients(op, arguments, floats, ones))


@pytest.mark.parametrize("op", ARGUMENTS)
def test_an_argument_of_any_layout_is_that_of_a_dense_one(backend, op):
    arguments, floats = leaves(op)
    wanted = call(op, arguments)
    grad = torch.linspace(-1, 1, wanted.numel()).view_as(wanted)
    for layout in (lambda x: torch.stack([x, x], -1)[..., 0], _in_a_flat_buffer, _transposed):
        views = {n: layout(x.detach()).requires_grad_() for n, x in floats.items()}
        views |= {n: layout(x) for n, x in ARGUMENTS[op].items() if isinstance(x, torch.Tensor) and n not in views}
        torch.testing.assert_close(call(op, arguments | views), wanted)
        found = gradients(op, arguments | views, {n: views[n] for n in floats}, grad)
        torch.testing.assert_close(found, gradients(op, arguments, floats, grad))


def _in_a_flat_buffer(x):
    """Dense, but not where an allocator would put it."""
    return torch.cat([x.flatten()[:1], x.flatten()])[1:].view_as(x)


def _transposed(x):
    return x.mT.contiguous().mT if x.dim() > 1 else x


@pytest.mark.parametrize("op", ARGUMENTS)
def test_expanded_arguments_are_those_of_copies(backend, op):
    """A row or a head for all: its stride is 0."""
    arguments, floats = leaves(op)
    for axis in (0, -1):
        expanded = {n: x.detach().narrow(axis, 0, 1).expand_as(x) for n, x in floats.items()}
        copies = {n: x.clone() for n, x in expanded.items()}
        torch.testing.assert_close(call(op, arguments | expanded), call(op, arguments | copies))


@pytest.mark.parametrize("op", ARGUMENTS)
def test_one_gradient_alone_is_that_of_all(backend, op):
    arguments, floats = leaves(op)
    grad = torch.ones_like(call(op, arguments))
    every = dict(zip(floats, gradients(op, arguments, floats, grad), strict=True))
    for name, x in floats.items():
        (found,) = gradients(op, ARGUMENTS[op] | {name: x}, {name: x}, grad)
        torch.testing.assert_close(found, every[name])


def test_a_backward_called_by_itself_refuses_what_does_not_fit():
    q, cu = torch.randn(3, 2, 8), torch.tensor([0, 3]).int()
    out, lse = torch.ops.relvlm.varlen_attention(q, q, q, cu, cu, 0.3, 0.0, None)

    def backward(grad=q, out=out, lse=lse):
        return torch.ops.relvlm.varlen_attention_backward(grad, q, q, q, out, lse, cu, cu, 0.3, 0.0, None)

    backward()
    for wrong in ({"grad": q[:2]}, {"out": out[:, :1]}, {"lse": lse[:2]}):
        with pytest.raises(ValueError, match=r"^varlen_attention_backward: (grad|out|lse) .* with "):
            backward(**wrong)
    for wrong in ({"grad": q.double()}, {"out": out.half()}, {"lse": lse.double()}):
        with pytest.raises(TypeError, match=r"^varlen_attention_backward: (grad|out|lse) .* float32"):
            backward(**wrong)
