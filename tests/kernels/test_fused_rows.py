"""Passes over rows: as the composed ops in fp64, on every backend with one mask, however torch calls them."""

import pytest
import torch
from support.closeness import assert_as_close_as
from torch.library import opcheck
from torch.utils.checkpoint import checkpoint

from relvlm_kernels import add_norm, cpu, dropout, gelu_linear, naive, reference

SEED = torch.tensor([2**40 + 7])
WIDTHS = [1, 5, 16, 48, 64, 100, 768]
NAMES = ("out", "total", "dresidual", "dx", "dweight", "dshift")


def rows(width, count=131, dtype=torch.float64, seed=0):
    """x, residual (or grad), weight (or bias), shift: more rows than two blocks of the kernels have."""
    generator = torch.Generator().manual_seed(seed)
    shapes = (count, width), (count, width), (width,), (width,)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]


def leaves(*args, **options):
    return [x.requires_grad_() for x in rows(*args, **options)]


def feed_forward_leaves(count=9, dtype=torch.float64):
    """x, bias, weight, out_bias."""
    generator = torch.Generator().manual_seed(1)
    shapes = (count, 20), (20,), (6, 20), (6,)
    found = (torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes)
    return [x.requires_grad_() for x in found]


def wave(out):
    return torch.linspace(-3, 3, out.numel(), dtype=torch.float64).sin().view(out.shape).to(out.dtype)


def results(module, tensors, rate):
    """Rows, sums and gradients that a backend gives."""
    seed = SEED if rate else None
    out, total, mean, rstd = module.add_norm(*tensors, 1e-5, rate, seed)
    grads = module.add_norm_backward(wave(out), total, mean, rstd, tensors[2], rate, seed)
    assert len(grads[1]) == (len(out) if rate else 0)
    return dict(zip(NAMES, (out, total, *grads), strict=True))


def gelu_results(module, x, bias, grad):
    return {"out": module.bias_gelu(x, bias)} | dict(
        zip(("again", "dx", "dbias"), module.bias_gelu_backward(grad.clone(), x, bias), strict=True)
    )


@pytest.mark.parametrize("rate", [0.0, 1e-12, 0.4])
@pytest.mark.parametrize("width", WIDTHS)
def test_add_norm_equals_fp64_reference(width, rate, instructions, threads, poisoned):
    found, wanted = (results(module, rows(width), rate) for module in (cpu, reference))
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("rate", [0.0, 0.1])
@pytest.mark.parametrize("width", [48, 100, 768])
def test_fp32_error_is_at_most_twice_that_of_plain_pytorch(width, rate, instructions, poisoned):
    tensors = rows(width, dtype=torch.float32)
    truth = results(reference, [x.double() for x in tensors], rate)
    assert_as_close_as(results(cpu, tensors, rate), results(reference, tensors, rate), truth)


@pytest.mark.parametrize("width", WIDTHS)
def test_bias_gelu_equals_fp64_reference(width, instructions, threads, poisoned):
    x, grad, bias, _ = rows(width)
    found, wanted = (gelu_results(module, 2 * x, bias, grad) for module in (cpu, reference))
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("scale", [0.01, 1.0, 5.0])
def test_gelu_s_fp32_error_is_at_most_twice_that_of_pytorch(scale, instructions):
    x, grad, bias, _ = rows(768, dtype=torch.float32)
    x = x * scale
    truth = gelu_results(reference, x.double(), bias.double(), grad.double())
    assert_as_close_as(*(gelu_results(module, x, bias, grad) for module in (cpu, reference)), truth)


def test_gelu_far_out_is_the_identity_or_nothing(instructions):
    x = torch.tensor([[-torch.inf, -1e30, -100, -15, 15, 100, 1e30, torch.nan]]).repeat(1, 4)
    none = torch.zeros(32)
    found = cpu.bias_gelu(x, none)[0, :8]
    torch.testing.assert_close(found[1:4], torch.zeros(3))
    assert torch.equal(found[4:7], x[0, 4:7]) and found[7].isnan()
    _, slope, _ = cpu.bias_gelu_backward(torch.ones_like(x), x, none)
    torch.testing.assert_close(slope[0, 2:6], torch.tensor([0.0, 0, 1, 1]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_fp32_rounded_once(dtype, instructions, poisoned):
    tensors = rows(100, dtype=dtype)
    wide = results(cpu, [x.float() for x in tensors], 0.3)
    found = results(cpu, tensors, 0.3)
    torch.testing.assert_close(found["out"], wide["out"].to(dtype), rtol=2 * torch.finfo(dtype).eps, atol=1e-5)
    x, grad, bias, _ = tensors
    narrow, wide = gelu_results(cpu, x, bias, grad), gelu_results(cpu, x.float(), bias.float(), grad.float())
    for name, found in narrow.items():
        torch.testing.assert_close(found, wide[name].to(dtype), rtol=2 * torch.finfo(dtype).eps, atol=1e-5)


@pytest.mark.parametrize("rate", [0.0, 0.4])
def test_add_norm_equals_naive_with_gradients(backend, rate):
    tensors = leaves(20, count=9)
    outs = [op(*tensors, 1e-12, rate, SEED) for op in (add_norm, naive.add_norm)]
    torch.testing.assert_close(*outs)
    torch.testing.assert_close(*(torch.autograd.grad(out, tensors, wave(out)) for out in outs))


def test_gelu_linear_equals_naive_with_gradients(backend):
    tensors = feed_forward_leaves()
    outs = [op(*tensors) for op in (gelu_linear, naive.gelu_linear)]
    torch.testing.assert_close(*outs)
    torch.testing.assert_close(*(torch.autograd.grad(out, tensors, wave(out)) for out in outs))


def test_the_mask_is_philox_s_on_every_backend(every_backend):
    """With nothing but ones dropped, and a norm that leaves them as they are."""
    count, width = 70, 200
    ones, none = torch.ones(count, width), torch.zeros(count, width)
    total = every_backend.add_norm(ones, none, ones[0], none[0], 1.0, 0.25, SEED)[1]
    torch.testing.assert_close(total, dropout.keep_features(SEED, 0.25, count, width).float())
    assert abs(float((total > 0).float().mean()) - 0.75) < 0.02


def test_neighbours_and_rows_are_dropped_independently():
    kept = (dropout.keep_features(SEED, 0.5, 600, 256) > 0).double() - 0.5
    for shifted in (kept.roll(1, 0), kept.roll(1, 1), kept.roll(16, 1), kept.roll(64, 1)):
        assert abs((kept * shifted).mean()) < 4 * 0.25 / kept.numel() ** 0.5


def test_the_first_word_s_mask_is_another_one_than_that_of_attention():
    rows_T = torch.arange(64)[None]
    of_attention = dropout.keep_scale(SEED, 0.5, rows_T, 1, 16)[0, 0]
    assert not torch.equal(of_attention, dropout.keep_features(SEED, 0.5, 64, 16))


def test_every_backend_gives_what_the_reference_gives(every_backend, poisoned):
    tensors = rows(100, count=37, dtype=torch.float32)
    torch.testing.assert_close(results(every_backend, tensors, 0.3), results(reference, tensors, 0.3))
    x, grad, bias, _ = tensors
    found, wanted = (gelu_results(module, x, bias, grad) for module in (every_backend, reference))
    torch.testing.assert_close(found, wanted)


def test_results_do_not_depend_on_the_number_of_threads(instructions):
    tensors, before = rows(768, count=500, dtype=torch.float32), torch.get_num_threads()
    found = []
    for number in (1, 2, 5):
        torch.set_num_threads(number)
        x, grad, bias, _ = tensors
        found.append(results(cpu, tensors, 0.1) | gelu_results(cpu, x, bias, grad))
    torch.set_num_threads(before)
    torch.testing.assert_close(found[1:], found[:1] * 2, rtol=0, atol=0)


def test_opcheck(backend):
    for options in ((1e-5, 0.0, None), (1e-5, 0.3, SEED)):
        opcheck(torch.ops.relvlm.add_norm.default, (*leaves(20, count=9), *options))
    opcheck(torch.ops.relvlm.gelu_linear.default, tuple(feed_forward_leaves()))


def test_gradcheck_with_dropout(backend):
    """The backward drops what the forward dropped."""
    assert torch.autograd.gradcheck(lambda *x: add_norm(*x, dropout=0.4, seed=SEED), leaves(7, count=5))
    assert torch.autograd.gradcheck(gelu_linear, feed_forward_leaves(count=3))


def test_checkpointing_replays_the_mask(backend):
    tensors = leaves(20, count=9)

    def run(wrap):
        torch.manual_seed(5)
        out = wrap(lambda *x: add_norm(*x, dropout=0.5))
        return out, *torch.autograd.grad(out.square().sum(), tensors)

    plain = run(lambda f: f(*tensors))
    replayed = run(lambda f: checkpoint(f, *tensors, use_reentrant=False))
    torch.testing.assert_close(replayed, plain, rtol=0, atol=0)


def test_compiled_it_is_the_op_and_draws_anew_at_each_call(backend):
    tensors = leaves(20, count=9)
    compiled = torch.compile(lambda *x: add_norm(*x, dropout=0.3, seed=SEED), backend="aot_eager", fullgraph=True)
    found, wanted = compiled(*tensors), add_norm(*tensors, dropout=0.3, seed=SEED)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(*(torch.autograd.grad(out, tensors, wave(out)) for out in (found, wanted)))
    drawn = torch.compile(lambda *x: add_norm(*x, dropout=0.5), backend="aot_eager", fullgraph=True)
    assert not torch.equal(drawn(*tensors), drawn(*tensors))


def test_a_product_under_autocast_may_be_narrower_than_the_residual(backend):
    x, *others = leaves(20, count=9, dtype=torch.float32)
    narrow = x.detach().bfloat16().requires_grad_()
    found = add_norm(narrow, *others)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, add_norm(narrow.float(), *others))
    assert torch.autograd.grad(found.sum(), narrow)[0].dtype == torch.bfloat16
    with pytest.raises(TypeError, match=r"^add_norm: x float64: expected float32"):
        add_norm(x.double(), *others)


def test_autocast_reaches_the_product_of_gelu_linear(backend):
    tensors = feed_forward_leaves(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        found = gelu_linear(*tensors)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), naive.gelu_linear(*tensors), rtol=0.05, atol=0.1)


def test_no_rows_give_zero_gradients(backend):
    tensors = leaves(20, count=0)
    grads = torch.autograd.grad(add_norm(*tensors, dropout=0.3).sum(), tensors)
    assert [x.shape for x in grads] == [x.shape for x in tensors] and not any(x.any() for x in grads)
