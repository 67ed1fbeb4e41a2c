"""What the ops share: dtypes under autocast, defaults, and what is looked at before."""

from types import SimpleNamespace

import pytest
import torch
from support.attention_cases import SMALL_GRID as GRID
from support.attention_cases import small_attention, small_qkv, small_regions

from relvlm_kernels import box_mean, dispatch

SEED = torch.tensor([2**40 + 7])


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


def test_scores_are_divided_by_the_root_of_the_width():
    assert dispatch.default_scale(None, torch.ones(2, 1, 16)) == 0.25
    assert dispatch.default_scale(None, torch.ones(2, 1, 0)) == 1.0  # so that the error is that of the shape
    assert dispatch.default_scale(0.0, torch.ones(2, 1, 16)) == 0.0


@pytest.mark.parametrize("scale", [float("inf"), -float("inf"), float("nan")])
def test_a_scale_that_is_not_finite_is_refused(scale):
    with pytest.raises(ValueError, match="expected a finite number"):
        dispatch.default_scale(scale, torch.ones(2, 1, 16))


@pytest.mark.parametrize("name", ["scale", "dropout"])
def test_numbers_may_not_be_tensors(name):
    with pytest.raises(TypeError, match=f"{name} is of type Tensor"):
        small_attention("varlen", *small_qkv(), **{name: torch.tensor(0.5)})


def test_a_seed_is_drawn_only_for_dropout():
    x = torch.ones(1)
    assert dispatch.dropout_seed(SEED, 0.0, x) is None
    assert dispatch.dropout_seed(SEED, 0.5, x) is SEED
    drawn = [dispatch.dropout_seed(None, 0.5, x) for _ in range(8)]
    assert all(seed.shape == (1,) and seed.dtype == torch.int64 for seed in drawn)
    assert max(int(seed) for seed in drawn) > 2**58  # of all 63 bits


@pytest.mark.parametrize(("dropout", "good"), [(-0.01, False), (0, True), (0.99, True), (1.0, False), (1.5, False)])
def test_dropout_is_at_least_0_and_less_than_1(dropout, good):
    if good:
        dispatch.dropout_seed(SEED, dropout, SEED)
        return
    with pytest.raises(ValueError, match=r"expected a number in \[0, 1\)"):
        dispatch.dropout_seed(SEED, dropout, SEED)


@pytest.mark.parametrize("seed", [SEED.int(), SEED[0], SEED.expand(2), SEED.to("meta")])
def test_another_seed_is_refused(seed):
    with pytest.raises(ValueError, match=r"expected \(1,\) int64 on cpu"):
        dispatch.dropout_seed(seed, 0.5, SEED)


@pytest.mark.parametrize(
    ("device", "dtypes", "backend", "wanted"),
    [
        ("cpu", (torch.int32, torch.int32), "cpu", False), ("cpu", (torch.int32, torch.int64), "cpu", True),
        ("cpu", (torch.int32, torch.int32), "reference", True), ("meta", (torch.int64, torch.int64), "cpu", False),
    ],
)  # fmt: skip
def test_indexes_are_looked_at_once(monkeypatch, device, dtypes, backend, wanted):
    monkeypatch.delenv("RELVLM_CHECK", raising=False)
    indexes = [torch.zeros(1, dtype=dtype) for dtype in dtypes]
    assert dispatch.checked(SimpleNamespace(name=backend), torch.ones(1, device=device), *indexes) is wanted


@pytest.mark.parametrize(("op", "width"), [("varlen_attention", 8), ("mrc_pool", None)])
def test_a_backend_is_asked_for_the_width_of_heads(monkeypatch, op, width):
    asked = []
    monkeypatch.setattr(dispatch, "chosen", lambda *of: asked.append(of))
    dispatch.backend_of(op, torch.ones(3, 1, 8))
    assert asked == [(torch.device("cpu"), torch.float32, width)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_log_sum_exps_are_float32_but_for_float64(dtype):
    lse = dispatch.empty_lse(torch.ones(3, 2, 8, dtype=dtype))
    assert lse.shape == (3, 2) and lse.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
