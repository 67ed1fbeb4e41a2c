"""The packed attention ops against the plain ones."""

import pytest
import torch
import torch.nn.functional as F
from torch.library import opcheck

from relvlm_kernels import (
    attention_qkvpacked,
    varlen_attention,
    varlen_attention_kvpacked,
    varlen_attention_qkvpacked,
)  # fmt: skip

CU_Q, CU_K, CU = (torch.tensor(x).int() for x in ([0, 5, 12], [0, 13, 39], [0, 7, 7, 39]))
OPS = ["varlen_kvpacked", "varlen_qkvpacked"]


SEED = torch.tensor([2**40 + 7])


def draw(*shape, dtype=torch.float64):
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, dtype=torch.float64, generator=generator).to(dtype)


def inputs(op, dtype=torch.float64):
    """q and kv, or qkv: leaves."""
    shapes = {
        "varlen_kvpacked": [(12, 2, 8), (39, 2, 2, 8)],
        "varlen_qkvpacked": [(39, 3, 2, 8)],
    }  # fmt: skip
    return [draw(*shape, dtype=dtype).requires_grad_() for shape in shapes[op]]


def attend_packed(op, tensors, **options):
    if op == "varlen_kvpacked":
        return varlen_attention_kvpacked(*tensors, CU_Q, CU_K, **options)
    return varlen_attention_qkvpacked(*tensors, CU, **options)


def attend_apart(op, tensors, **options):
    if op == "varlen_kvpacked":
        q, kv = tensors
        return varlen_attention(q, *kv.unbind(1), CU_Q, CU_K, **options)
    return varlen_attention(*tensors[0].unbind(1), CU, CU, **options)


@pytest.mark.parametrize("options", [{}, {"scale": 0.2, "dropout": 0.4, "seed": SEED}], ids=["", "dropout"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("op", OPS)
def test_packed_equals_apart_to_the_last_bit(op, dtype, options, backend):
    tensors = inputs(op, dtype)
    outs = [attend(op, tensors, **options) for attend in (attend_packed, attend_apart)]
    torch.testing.assert_close(*outs, rtol=0, atol=0)
    found, wanted = (torch.autograd.grad(out.square().sum(), tensors) for out in outs)
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)
    assert all(x.is_contiguous() for x in found)


@pytest.mark.parametrize("op", OPS)
def test_gradcheck(op, backend):
    assert torch.autograd.gradcheck(lambda *x: attend_packed(op, x, dropout=0.3, seed=SEED), inputs(op), fast_mode=True)


@pytest.mark.parametrize("options", [(0.0, None), (0.3, SEED)], ids=["", "dropout"])
def test_opcheck(options, backend):
    opcheck(torch.ops.relvlm.varlen_attention_kvpacked.default, (*inputs("varlen_kvpacked"), CU_Q, CU_K, 0.3, *options))
    opcheck(torch.ops.relvlm.varlen_attention_qkvpacked.default, (*inputs("varlen_qkvpacked"), CU, 0.3, *options))


@pytest.mark.parametrize("op", OPS)
def test_compiles(op, backend):
    tensors = inputs(op)
    compiled = torch.compile(lambda *x: attend_packed(op, x), backend="aot_eager", fullgraph=True)
    outs = compiled(*tensors), attend_packed(op, tensors)
    torch.testing.assert_close(*outs)
    found, wanted = (torch.autograd.grad(out.square().sum(), tensors) for out in outs)
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("op", OPS)
def test_autocast(op):
    tensors = inputs(op, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        out = attend_packed(op, tensors)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out, attend_packed(op, [x.bfloat16() for x in tensors]))
    out.float().sum().backward()
    assert all(x.grad.dtype == torch.float32 for x in tensors)


@pytest.mark.parametrize("shape", [(3, 5, 3, 2, 8), (1, 1, 3, 1, 4), (0, 5, 3, 2, 8)])
def test_sequences_of_one_length_are_attended_to_as_by_pytorch(shape):
    qkv = draw(*shape).requires_grad_()
    found = attention_qkvpacked(qkv, 0.3)
    wanted = F.scaled_dot_product_attention(*qkv.permute(2, 0, 3, 1, 4), scale=0.3).transpose(1, 2)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(*(torch.autograd.grad(out.square().sum(), qkv) for out in (found, wanted)))
