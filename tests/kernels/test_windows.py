"""Attention within windows: a bias that all share, a mask that windows take in turn, gradients of qkv and bias."""

import pytest
import torch
from support.attention_cases import wave
from torch.library import opcheck

from relvlm_kernels import naive, window_attention, windows


def draw(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, dtype=torch.float64, generator=generator)


def case(tokens=7, batch=6, heads=3, width=8, masks=3):
    """qkv and bias, as leaves, and a mask."""
    qkv, bias = draw(batch, tokens, 3, heads, width), draw(heads, tokens, tokens, seed=1)
    mask = draw(masks, tokens, tokens, seed=2).sign().clamp(max=0) * 100 if masks else None
    return [qkv.requires_grad_(), bias.requires_grad_()], mask


def outcome(op, tensors, *rest):
    out = op(*tensors, *rest)
    return out.detach(), *torch.autograd.grad(out, tensors, wave(out))


SIZES = [
    {}, {"masks": 0}, {"batch": 0}, {"tokens": 1, "masks": 1}, {"tokens": 49, "batch": 36, "width": 32}, {"width": 5},
]  # fmt: skip


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_equals_naive_with_gradients(sizes, backend):
    tensors, mask = case(**sizes)
    torch.testing.assert_close(*(outcome(op, tensors, mask, 0.4) for op in (window_attention, naive.window_attention)))


def test_every_instruction_set_and_any_threads_agree(instructions, threads, poisoned):
    tensors, mask = case(tokens=49, batch=36, width=32)
    wanted = outcome(naive.window_attention, tensors, mask)
    torch.testing.assert_close(outcome(window_attention, tensors, mask), wanted)


def test_the_gradient_of_the_bias_is_the_same_to_the_bit_whatever_the_threads():
    tensors, mask = case(tokens=16, batch=33)
    single, before = [x.detach().float().requires_grad_() for x in tensors], torch.get_num_threads()
    found = []
    for count in (1, 4):
        torch.set_num_threads(count)
        found.append(outcome(window_attention, single, mask.float()))
    torch.set_num_threads(before)
    torch.testing.assert_close(*found, rtol=0, atol=0)


def test_a_device_without_a_kernel_has_matrix_products():
    tensors, mask = case()
    found = outcome(windows.by_matrix_products, tensors, mask, 0.4)
    torch.testing.assert_close(found, outcome(naive.window_attention, tensors, mask, 0.4))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_fp32_rounded(dtype, backend):
    tensors, mask = case(width=16)
    half = [x.detach().to(dtype).requires_grad_() for x in tensors]
    single = [x.detach().float().requires_grad_() for x in half]
    found, wanted = outcome(window_attention, half, mask.to(dtype)), outcome(window_attention, single, mask.float())
    for a, b in zip(found, wanted, strict=True):
        assert a.dtype == dtype
        torch.testing.assert_close(a.float(), b, rtol=0.02, atol=0.02)


def test_windows_take_the_masks_in_turn(backend):
    """A mask that leaves each token alone in every second window: there its value comes out."""
    (qkv, bias), _ = case(tokens=4, batch=4)
    alone = torch.stack([torch.zeros(4, 4), torch.full((4, 4), -1e4).fill_diagonal_(0)]).double()
    out = window_attention(qkv, bias, alone)
    same = (out == qkv[:, :, 2]).flatten(1).all(1)
    assert same.tolist() == [False, True, False, True]


def test_windows_that_are_no_multiple_of_the_masks_are_refused(backend):
    (qkv, bias), mask = case()
    with pytest.raises(ValueError, match="window_attention: 5 windows are no multiple of the mask's 3"):
        window_attention(qkv[:5], bias, mask)


def test_a_mask_of_other_tokens_or_dtype_is_refused(backend):
    (qkv, bias), mask = case()
    with pytest.raises(ValueError, match=r"^window_attention: mask \(3, 6, 7\): expected \(W, N, N\) with N = 7$"):
        window_attention(qkv, bias, mask[:, 1:])
    with pytest.raises(TypeError, match=r"^window_attention: mask float32: expected float64"):
        window_attention(qkv, bias, mask.float())


def test_no_scores_are_kept():
    (qkv, bias), mask = case(tokens=49, batch=36)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, lambda x: x):
        window_attention(qkv, bias, mask)
    assert max(kept) < 36 * 3 * 49 * 49


def test_opcheck(backend):
    tensors, mask = case(tokens=4)
    for given in (mask, None):
        opcheck(torch.ops.relvlm.window_attention.default, (*tensors, given, 0.3))


def test_gradcheck(backend):
    tensors, mask = case(tokens=3, batch=3, heads=2, width=3)
    assert torch.autograd.gradcheck(lambda *x: window_attention(*x, mask), tensors)
