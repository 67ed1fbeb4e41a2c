"""Queries that no group or sequence owns, keys of none, and images that are not there: zeros, in every backend."""

from dataclasses import replace

import pytest
import torch
from support.attention_cases import NAMES, case, outside_case, region_case, results

from relvlm_kernels import Regions, naive, ops, reference

OPS = ["region_attention", "varlen_attention"]
SEED = torch.tensor([2**40 + 7])
TINY = {"heads": 1}


def single(tensors):
    return [x.float() for x in tensors]


def assert_equal(found, wanted):
    for name, a, b in zip(NAMES, found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")


def assert_zeros(found):
    out, lse, *gradients = found
    assert not out.any() and lse.isneginf().all() and not any(x.any() for x in gradients)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("op", OPS)
def test_reference_equals_naive_with_gradients(op, dropout, monkeypatch):
    monkeypatch.setenv("RELVLM_KERNELS", "reference")
    tensors, index = outside_case(op, 8)
    tensors = [x.requires_grad_() for x in tensors]
    outs = [getattr(module, op)(*tensors, *index, dropout=dropout, seed=SEED) for module in (ops, naive)]
    torch.testing.assert_close(*outs)
    torch.testing.assert_close(*(torch.autograd.grad(out.square().sum(), tensors) for out in outs))
    assert not outs[1][:5].any() and not outs[1][-70:].any() and outs[1][5:-70].any()


@pytest.mark.parametrize("op", OPS)
def test_rows_outside_are_zeros_and_the_others_as_ever(op, every_backend, poisoned):
    tensors, index = case(op, 16, **TINY)
    inner = results(reference, op, single(tensors), index, 0.3)
    tensors, index = outside_case(op, 16, **TINY)
    found = results(every_backend, op, single(tensors), index, 0.3)
    assert_equal(found, results(reference, op, single(tensors), index, 0.3))
    out, lse, dq, dk, dv = found
    torch.testing.assert_close(out[5:-70], inner[0], rtol=1e-4, atol=1e-5)
    for x in (out, dq, *((dk, dv) if op == "varlen_attention" else ())):
        assert not x[:3].any() and not x[-70:].any()
    assert lse[:5].isneginf().all() and lse[-70:].isneginf().all()


def test_groups_whose_image_is_not_there_see_nothing(every_backend, poisoned):
    if every_backend.__name__.endswith("cpu"):
        pytest.skip("refuses them itself")
    tensors, (regions,) = region_case(16, **TINY)
    image = regions.image.clone()
    image[[2, 8]] = torch.tensor([9, -1]).int()
    found = results(every_backend, "region_attention", single(tensors), (replace(regions, image=image),), 0.3)
    rows = torch.zeros(len(image)).index_fill_(0, torch.tensor([2, 8]), 1).bool()
    rows = rows.repeat_interleave(regions.offsets.diff())
    out, lse, dq, *_ = found
    assert rows.sum() > 77 and out[~rows].any()
    assert not out[rows].any() and not dq[rows].any() and lse[rows].isneginf().all()
    box = regions.box[:3], torch.tensor([0, 4, -1]).int(), regions.grid
    means = every_backend.box_mean(tensors[1].flatten(2).float(), *box)
    assert means[0].all() and not means[1:].any()


def test_without_any_group_all_is_zero(every_backend, poisoned):
    (q, k, v), (regions,) = region_case(16, **TINY)
    none = Regions.whole(torch.tensor([4]).int(), torch.zeros(0).int(), regions.grid)
    assert_zeros(results(every_backend, "region_attention", single((q, k, v)), (none,), 0.3))
    assert_zeros(results(every_backend, "region_attention", single((q, k[:0], v[:0])), (none,), 0.3))


def test_without_any_sequence_all_is_zero(every_backend, poisoned):
    tensors, _ = case("varlen_attention", 16, **TINY)
    none = torch.tensor([3]).int()
    assert_zeros(results(every_backend, "varlen_attention", single(tensors), (none, none), 0.3))


def test_a_sequence_without_keys_gives_zeros(every_backend, poisoned):
    q, k, v = (torch.randn(n, 2, 8) for n in (5, 3, 3))
    index = torch.tensor([0, 2, 5]).int(), torch.tensor([0, 3, 3]).int()
    out, lse, dq, _, _ = results(every_backend, "varlen_attention", [q, k, v], index, 0.25)
    assert out[:2].all() and lse[:2].isfinite().all()
    assert not out[2:].any() and not dq[2:].any() and lse[2:].isneginf().all()


def test_a_part_of_the_images_leaves_rows_of_other_images_and_zeroes_those_of_none(every_backend, poisoned):
    """As the backward of `region_cross_attention` goes through the images."""
    (q, k, v), (regions,) = outside_case("region_attention", 16, **TINY)
    q, k, v = single((q, k, v))
    out, lse, *wanted = results(every_backend, "region_attention", [q, k, v], (regions,), 0.3)
    grads = results(reference, "region_attention", [q, k, v], (regions,), 0.3)[2:]
    to = torch.full_like(q, torch.nan), torch.empty_like(k), torch.empty_like(v)
    for first, last in ((0, 1), (1, 4)):
        part = replace(regions, image=regions.image - first)
        args = torch.zeros_like(q), q, k[first:last], v[first:last], out, lse, part, 0.3, 0.0, None
        every_backend.region_attention_backward(*args, (to[0], to[1][first:last], to[2][first:last]))
        elsewhere = (regions.image >= last) | (regions.image < first)
        rows = torch.nn.functional.pad(elsewhere.repeat_interleave(regions.offsets.diff()), (5, 70))
        if first == 0:
            assert to[0][rows].isnan().all() and not to[0][~rows].isnan().any()
    assert not any(x.isnan().any() for x in to)
    assert_equal((out, lse, *wanted), (out, lse, *grads))
