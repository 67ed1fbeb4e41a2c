"""The four ops against loops over groups in fp64, their gradients, and `torch.library`'s own checks."""

import pytest
import torch
from torch.library import opcheck

from relvlm_kernels import Regions, box_mean, mrc_pool, ops, region_attention, varlen_attention

GRID = (3, 4)


def make_regions() -> Regions:
    """Six groups on three images: whole, empty, one patch, mean token, prefix and mean; image 1 has none."""
    return Regions(
        offsets=torch.tensor([0, 3, 3, 5, 6, 10, 12], dtype=torch.int32),
        image=torch.tensor([2, 0, 0, 2, 0, 2], dtype=torch.int32),
        box=torch.tensor(
            [[0, 0, 4, 3], [0, 0, 1, 1], [3, 2, 4, 3], [1, 0, 3, 2], [0, 1, 4, 2], [0, 0, 4, 3]],
            dtype=torch.int32,
        ),
        prefix=torch.tensor([True, True, False, False, True, True]),
        mean=torch.tensor([False, True, True, True, True, False]),
        grid=GRID,
    )


def make_qkv(dtype=torch.float64):
    torch.manual_seed(0)
    return (
        torch.randn(12, 2, 8, dtype=dtype, requires_grad=True),
        torch.randn(3, 13, 2, 8, dtype=dtype, requires_grad=True),
        torch.randn(3, 13, 2, 8, dtype=dtype, requires_grad=True),
    )


def attend_group_by_group(q, k, v, regions):
    """Keys gathered, the mean token appended for real, one group at a time."""
    out = []
    for g in range(len(regions.image)):
        start, end = regions.offsets[g], regions.offsets[g + 1]
        x0, y0, x1, y1 = regions.box[g].tolist()

        def seen(x, g=g, x0=x0, y0=y0, x1=x1, y1=y1):
            image = x[regions.image[g]]
            patches = image[1:].view(*GRID, *image.shape[1:])[y0:y1, x0:x1].flatten(0, 1)
            parts = [image[:1]] if regions.prefix[g] else []
            parts += [patches] + ([patches.mean(0, keepdim=True)] if regions.mean[g] else [])
            return torch.cat(parts)

        weights = torch.einsum("qhd,shd->hqs", q[start:end], seen(k)).mul(q.shape[-1] ** -0.5).softmax(-1)
        out.append(torch.einsum("hqs,shd->qhd", weights, seen(v)))
    return torch.cat(out)


def test_region_attention_equals_gathered_keys_with_gradients():
    q, k, v = make_qkv()
    regions = make_regions()
    out, expected = region_attention(q, k, v, regions), attend_group_by_group(q, k, v, regions)
    torch.testing.assert_close(out, expected)
    seed = torch.randn_like(out)
    found = torch.autograd.grad(out, (q, k, v), seed)
    wanted = torch.autograd.grad(expected, (q, k, v), seed)
    torch.testing.assert_close(found, wanted)


def test_keys_outside_every_box_get_no_gradient():
    q, k, v = make_qkv()
    dv = torch.autograd.grad(region_attention(q, k, v, make_regions()).sum(), v)[0]
    assert dv[1].abs().max() == 0
    assert dv[0, 1:5].abs().max() == 0  # image 0: its groups with tokens see patch rows 1 and 2 only
    assert dv[0, 5:9].abs().min() > 0


def test_region_attention_without_tokens():
    _, k, v = make_qkv()
    regions = Regions.whole(torch.zeros(1, dtype=torch.int32), torch.zeros(0, dtype=torch.int32), GRID)
    q = torch.zeros(0, 2, 8, dtype=torch.float64)
    assert region_attention(q, k, v, regions).shape == (0, 2, 8)


def test_region_attention_names_the_shapes_that_disagree():
    q, k, v = make_qkv()
    with pytest.raises(ValueError, match=r"expected \(T, H, D\)"):
        region_attention(q[:, :1], k, v, make_regions())


def test_varlen_attention_equals_sequence_by_sequence():
    torch.manual_seed(1)
    q, k, v = (torch.randn(n, 2, 4, dtype=torch.float64, requires_grad=True) for n in (7, 9, 9))
    cu_q = torch.tensor([0, 2, 2, 7], dtype=torch.int32)
    cu_k = torch.tensor([0, 4, 5, 9], dtype=torch.int32)
    out = varlen_attention(q, k, v, cu_q, cu_k)
    parts = []
    for a, b, c, d in [(0, 2, 0, 4), (2, 7, 5, 9)]:
        weights = torch.einsum("qhd,khd->hqk", q[a:b], k[c:d]).mul(0.5).softmax(-1)
        parts.append(torch.einsum("hqk,khd->qhd", weights, v[c:d]))
    expected = torch.cat(parts)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(
        torch.autograd.grad(out.square().sum(), (q, k, v)),
        torch.autograd.grad(expected.square().sum(), (q, k, v)),
    )


def test_box_mean_is_the_mean_of_the_patches_inside():
    torch.manual_seed(2)
    x = torch.randn(3, 13, 5, dtype=torch.float64)
    regions = make_regions()
    out = box_mean(x, regions.box, regions.image, GRID)
    expected = x[2, 1:].view(3, 4, 5)[0:2, 1:3].mean((0, 1))
    torch.testing.assert_close(out[3], expected)
    torch.testing.assert_close(out[2], x[0, 12])


def test_opcheck():
    q, k, v = make_qkv()
    r = make_regions()
    opcheck(ops._region_attention, (q, k, v, r.offsets, r.image, r.box, r.prefix, r.mean, *GRID, 0.3))
    cu = torch.tensor([0, 4, 12], dtype=torch.int32)
    opcheck(ops._varlen_attention, (q, q.detach(), q.detach(), cu, cu, 0.3))
    x = torch.randn(3, 13, 5, dtype=torch.float64, requires_grad=True)
    opcheck(ops._box_mean, (x, r.box, r.image, *GRID))
    h = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    rows = torch.tensor([0, 5, 5])
    weight, bias = torch.randn(3, 8, dtype=torch.float64, requires_grad=True), torch.zeros(3).double()
    opcheck(ops._mrc_pool, (h, rows, rows.flip(0), weight, bias))


def test_gradcheck_of_mrc_pool():
    torch.manual_seed(3)
    h, weight, bias = (
        torch.randn(*s, dtype=torch.float64, requires_grad=True) for s in [(5, 3), (4, 6), (4,)]
    )
    subject, object_ = torch.tensor([0, 0, 4]), torch.tensor([1, 2, 0])
    assert torch.autograd.gradcheck(lambda *x: mrc_pool(x[0], subject, object_, *x[1:]), (h, weight, bias))
