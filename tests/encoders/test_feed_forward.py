"""The feed-forward part and BERT's residual: as the composed modules of PyTorch, whose names they keep."""

import pytest
import torch
from support.closeness import assert_as_close_as
from torch import nn
from torch.nn.functional import layer_norm

from relvlm.config.schema import TextConfig
from relvlm.encoders.feed_forward import FeedForward
from relvlm.encoders.text import Residual


def with_gradients(out, inputs):
    grad = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view(out.shape)
    return out, *torch.autograd.grad(out, inputs, grad)


def made(dtype):
    """Feed-forward part, residual around another, and rows."""
    torch.manual_seed(0)
    feed_forward = FeedForward(24, 96)
    residual = Residual(FeedForward(24, 96), TextConfig(width=24, dropout=0.0))
    for part in (*feed_forward.parameters(), *residual.parameters()):
        if part.dim() == 1:
            nn.init.normal_(part, 0.5, 0.2)
    return feed_forward.to(dtype), residual.to(dtype), torch.randn(70, 24).to(dtype).requires_grad_()


def composed(residual, x):
    """Without dropout, as before these passes were fused."""
    out = x + nn.Sequential.forward(residual.inner, x)
    return layer_norm(out, x.shape[1:], residual.norm.weight, residual.norm.bias, residual.norm.eps)


@pytest.mark.parametrize("shape", [(70, 24), (2, 35, 24), (2, 5, 7, 24)])
def test_it_equals_the_composed_modules_with_gradients(shape):
    feed_forward, _, x = made(torch.float64)
    inputs = (x, *feed_forward.parameters())
    outs = (feed_forward(x.view(shape)), nn.Sequential.forward(feed_forward, x.view(shape)))
    torch.testing.assert_close(*(with_gradients(out, inputs) for out in outs))
    assert set(feed_forward.state_dict()) == {"0.weight", "0.bias", "2.weight", "2.bias"}


def test_a_residual_without_dropout_equals_the_composed_one_with_gradients():
    _, residual, x = made(torch.float64)
    inputs = (x, *residual.parameters())
    torch.testing.assert_close(*(with_gradients(out, inputs) for out in (residual(x), composed(residual, x))))


def test_in_fp32_it_is_as_right_as_the_composed_one():
    results = []
    for dtype in (torch.float32, torch.float64):
        _, residual, x = made(dtype)
        inputs = (x, *residual.parameters())
        results.append([with_gradients(out, inputs) for out in (residual(x), composed(residual, x))])
    (found, plain), (_, truth) = results
    assert_as_close_as(found, plain, truth)


def test_what_gelu_gives_is_not_kept():
    feed_forward, _, x = made(torch.float32)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        feed_forward(x)
    hidden = [t for t in kept if t.shape == (70, 96)]
    assert len({t.data_ptr() for t in hidden}) == 1
