"""The four ops against loops over groups in fp64, their gradients, and `torch.library`'s own checks."""

import pytest
import torch
from torch.library import opcheck

from relvlm_kernels import (
    Regions,
    backends,
    box_mean,
    dropout,
    mrc_pool,
    ops,
    region_attention,
    varlen_attention,
)  # fmt: skip

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


SEED = torch.tensor([2**40 + 7])


def attend(op, q, k, v, **options):
    """Either attention op on the same tensors; for `varlen` two sequences of keys out of the images."""
    if op == "region":
        return region_attention(q, k, v, make_regions(), **options)
    cu_q, cu_k = torch.tensor([0, 5, 12]).int(), torch.tensor([0, 13, 39]).int()
    return varlen_attention(q, k.flatten(0, 1), v.flatten(0, 1), cu_q, cu_k, **options)


@pytest.mark.parametrize(
    ("counter", "key", "word"),
    [
        ((0, 0, 0, 0), (0, 0), 0x6627E8D5),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, 0x408F276D),
        ((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0), 0xD16CFE09),
    ],
)
def test_philox_gives_the_known_answers(counter, key, word):
    """Of Random123's test vectors for philox4x32_10."""
    found = dropout.first_word(tuple(map(torch.tensor, counter)), tuple(map(torch.tensor, key)))
    assert found.item() == word


@pytest.mark.parametrize("op", ["region", "varlen"])
def test_gradcheck_with_dropout(op, backend):
    """The backward drops what the forward dropped."""
    assert torch.autograd.gradcheck(lambda *x: attend(op, *x, dropout=0.4, seed=SEED), make_qkv(), fast_mode=True)


@pytest.mark.parametrize("op", ["region", "varlen"])
def test_no_dropout_is_exactly_no_dropout(op, backend):
    tensors = make_qkv()
    plain = attend(op, *tensors)
    torch.testing.assert_close(attend(op, *tensors, dropout=0.0, seed=SEED), plain, rtol=0, atol=0)
    assert not torch.equal(attend(op, *tensors, dropout=0.2, seed=SEED), plain)


@pytest.mark.parametrize("op", ["region", "varlen"])
def test_dropout_is_a_function_of_the_seed(op, backend):
    tensors = make_qkv()
    first, again, other = (attend(op, *tensors, dropout=0.5, seed=seed) for seed in (SEED, SEED.clone(), SEED + 2**32))
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("op", ["region", "varlen"])
def test_dropout_keeps_the_expectation(op, backend):
    q, k, v = (x.detach() for x in make_qkv())
    drawn = torch.stack([attend(op, q, k, v, dropout=0.3, seed=SEED + i) for i in range(600)])
    standard_error = drawn.std(0) / len(drawn) ** 0.5
    off = (drawn.mean(0) - attend(op, q, k, v)) / standard_error.clamp(min=1e-9)
    assert off.square().mean() < 1.3  # the mean square of standard normal numbers is 1


def test_dropout_of_one_key_is_all_or_nothing(backend):
    """One key a query: the probability is 1, so that the mask itself is what comes out."""
    rows = torch.arange(4001).int()
    one = torch.ones(4000, 3, 1)
    out = varlen_attention(one, one, one, rows, rows, dropout=0.25, seed=SEED)
    kept = dropout.keep_scale(SEED, 0.25, torch.arange(4000)[None], 3, 1)[0, ..., 0].T
    torch.testing.assert_close(out[..., 0], kept.float())
    assert abs(float((out > 0).float().mean()) - 0.75) < 0.02


@pytest.mark.parametrize("op", ["region", "varlen"])
def test_checkpointing_replays_the_mask(op, backend):
    tensors = make_qkv()

    def run(wrap):
        torch.manual_seed(5)
        out = wrap(lambda *x: attend(op, *x, dropout=0.5))
        return out, *torch.autograd.grad(out.square().sum(), tensors)

    plain = run(lambda f: f(*tensors))
    replayed = run(lambda f: torch.utils.checkpoint.checkpoint(f, *tensors, use_reentrant=False))
    torch.testing.assert_close(replayed, plain, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dropout": 1.0}, r"\[0, 1\)"),
        ({"dropout": -0.1}, r"\[0, 1\)"),
        ({"dropout": 0.1, "seed": SEED.int()}, r"expected \(1,\) int64"),
        ({"dropout": 0.1, "seed": SEED[0]}, r"expected \(1,\) int64"),
    ],
)
def test_bad_dropout_or_seed_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        attend("region", *make_qkv(), **options)


def test_lse_of_a_region_includes_prefix_and_mean(backend):
    q, k, v = (x.detach() for x in make_qkv())
    _, lse = backends.BACKENDS[backend].ops.region_attention(q, k, v, make_regions(), 0.3, 0.0, None)
    box = k[0, 5:9]  # group 4: the second row of image 0
    seen = torch.cat([k[0, :1], box, box.mean(0, keepdim=True)])
    torch.testing.assert_close(lse[6:10], torch.einsum("qhd,shd->qhs", q[6:10], seen).mul(0.3).logsumexp(-1))


def test_lse_without_keys_is_minus_infinity_and_the_output_zero(backend):
    q, k, v = (x.detach() for x in make_qkv())
    cu_q, cu_k = torch.tensor([0, 5, 12]).int(), torch.tensor([0, 39, 39]).int()
    inputs = q, k.flatten(0, 1), v.flatten(0, 1), cu_q, cu_k, 0.3, 0.0, None
    out, lse = backends.BACKENDS[backend].ops.varlen_attention(*inputs)
    scores = torch.einsum("qhd,shd->qhs", q, inputs[1]).mul(0.3)
    torch.testing.assert_close(lse[:5], scores[:5].logsumexp(-1))
    assert (lse[5:] == -torch.inf).all() and not out[5:].any()


@pytest.mark.parametrize("op", ["region", "varlen"])
def test_compiles_with_dropout(op, backend):
    tensors = make_qkv()
    compiled = torch.compile(lambda *x: attend(op, *x, dropout=0.3, seed=SEED), backend="aot_eager", fullgraph=True)
    plain = attend(op, *tensors, dropout=0.3, seed=SEED)
    torch.testing.assert_close(compiled(*tensors), plain)
    found, wanted = (torch.autograd.grad(out.square().sum(), tensors) for out in (compiled(*tensors), plain))
    torch.testing.assert_close(found, wanted)


def test_compiled_dropout_draws_anew_at_each_call(backend):
    compiled = torch.compile(lambda *x: attend("region", *x, dropout=0.5), backend="aot_eager", fullgraph=True)
    q, k, v = (x.detach() for x in make_qkv())
    assert not torch.equal(compiled(q, k, v), compiled(q, k, v))


@pytest.mark.parametrize("op", ["region", "varlen"])
def test_autocast_casts_mixed_dtypes(op):
    q, k, v = make_qkv(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        out = attend(op, q, k.bfloat16(), v)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out, attend(op, q.bfloat16(), k.bfloat16(), v.bfloat16()))
    out.float().sum().backward()
    assert q.grad.dtype == v.grad.dtype == torch.float32


def test_autocast_leaves_float64_and_box_means_alone():
    q, k, v = make_qkv()
    x = torch.randn(3, 13, 5)
    r = make_regions()
    plain = box_mean(x, r.box, r.image, GRID)
    with torch.autocast("cpu", torch.bfloat16):
        assert attend("region", q, k, v).dtype == torch.float64
        torch.testing.assert_close(box_mean(x, r.box, r.image, GRID), plain, rtol=0, atol=0)


@pytest.mark.parametrize("triplets", [3, 11], ids=["fewer than rows", "more than rows"])
def test_mrc_pool_equals_the_concatenation_with_gradients(triplets):
    torch.manual_seed(4)
    h, weight, bias = (torch.randn(s, dtype=torch.float64, requires_grad=True) for s in [(5, 3), (4, 6), (4,)])
    subject, object_ = torch.randint(5, (2, triplets))
    out = mrc_pool(h, subject, object_, weight, bias)
    expected = (torch.cat([h[subject], h[object_]], 1) @ weight.T + bias).relu()
    torch.testing.assert_close(out, expected)
    grad = torch.randn_like(out)
    found, wanted = (torch.autograd.grad(o, (h, weight, bias), grad) for o in (out, expected))
    torch.testing.assert_close(found, wanted)


def test_gradient_of_box_mean_spreads_over_the_box():
    torch.manual_seed(2)
    x = torch.randn(3, 13, 5, dtype=torch.float64, requires_grad=True)
    r = make_regions()
    assert torch.autograd.gradcheck(lambda x: box_mean(x, r.box, r.image, GRID), (x,))


def test_opcheck(backend):
    q, k, v = make_qkv()
    r = make_regions()
    index = r.offsets, r.image, r.box, r.prefix, r.mean, *GRID
    cu = torch.tensor([0, 4, 12], dtype=torch.int32)
    for options in ((0.0, None), (0.3, SEED)):
        opcheck(ops._region_attention, (q, k, v, *index, 0.3, *options))
        opcheck(ops._varlen_attention, (q, q.detach(), q.detach(), cu, cu, 0.3, *options))
    x = torch.randn(3, 13, 5, dtype=torch.float64, requires_grad=True)
    opcheck(ops._box_mean, (x, r.box, r.image, *GRID))
    h = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    rows = torch.tensor([0, 5, 5])
    weight, bias = torch.randn(3, 8, dtype=torch.float64, requires_grad=True), torch.zeros(3).double()
    opcheck(ops._mrc_pool, (h, rows, rows.flip(0), weight, bias))


def test_gradcheck_of_mrc_pool():
    torch.manual_seed(3)
    h, weight, bias = (torch.randn(*s, dtype=torch.float64, requires_grad=True) for s in [(5, 3), (4, 6), (4,)])
    subject, object_ = torch.tensor([0, 0, 4]), torch.tensor([1, 2, 0])
    assert torch.autograd.gradcheck(lambda *x: mrc_pool(x[0], subject, object_, *x[1:]), (h, weight, bias))
