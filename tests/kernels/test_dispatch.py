"""What the ops share: dtypes under autocast."""

import pytest
import torch
from support.attention_cases import SMALL_GRID as GRID
from support.attention_cases import small_attention, small_qkv, small_regions

from relvlm_kernels import box_mean


@pytest.mark.parametrize("op", ["region", "varlen"])
def test_autocast_casts_mixed_dtypes(op):
    q, k, v = small_qkv(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        out = small_attention(op, q, k.bfloat16(), v)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out, small_attention(op, q.bfloat16(), k.bfloat16(), v.bfloat16()))
    out.float().sum().backward()
    assert q.grad.dtype == v.grad.dtype == torch.float32


def test_autocast_leaves_float64_and_box_means_alone():
    q, k, v = small_qkv()
    x = torch.randn(3, 13, 5)
    r = small_regions()
    plain = box_mean(x, r.box, r.image, GRID)
    with torch.autocast("cpu", torch.bfloat16):
        assert small_attention("region", q, k, v).dtype == torch.float64
        torch.testing.assert_close(box_mean(x, r.box, r.image, GRID), plain, rtol=0, atol=0)
