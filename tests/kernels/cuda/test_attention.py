"""The `cuda` backend on a GPU, against the reference in fp64 and PyTorch's own attention; elsewhere what it refuses."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from support.attention_cases import NAMES, case, moved, outside_case, results, rms, wave
from support.cuda_on_host import stand_in

from relvlm_kernels import Regions, cuda, reference
from relvlm_kernels.cuda import plan
from relvlm_kernels.recent import called_eagerly

WIDTHS = [20, 32, 64, 80, 96, 128]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
OPS = ["region_attention", "varlen_attention"]
SCALE = 0.2
LARGE = {"grid": (14, 14), "images": 5, "groups": 40, "longest": 150}  # more than two tiles of queries


def on_device(device, op, width, dtype=torch.float32, make=case, **options):
    tensors, index = make(op, width, **(LARGE | options if op == "region_attention" else {}))
    return [x.to(device, dtype) for x in tensors], moved(index, device)


def masked(index, queries, keys):
    """Bool mask (queries, keys) of all packed queries against all packed keys; no mean token."""
    if isinstance(index[0], Regions):
        r = index[0]
        group = torch.arange(len(r.image), device=r.image.device).repeat_interleave(r.offsets.diff())
        tokens = keys // LARGE["images"]
        prefix = r.prefix[:, None].expand(-1, tokens - r.grid[0] * r.grid[1])
        visible = torch.cat([prefix, r.patch_mask()], 1)[group]
        token = torch.arange(keys, device=group.device)
        return (token // tokens == r.image[group][:, None]) & visible[:, token % tokens]
    mask = torch.zeros(queries, keys, dtype=torch.bool, device=index[0].device)
    for (a, b), (c, d) in zip(pairwise(index[0].tolist()), pairwise(index[1].tolist()), strict=True):
        mask[a:b, c:d] = True
    return mask


def pytorch(tensors, index):
    """PyTorch's own attention with a mask, over all packed keys; zeros for queries that see nothing.

    These see everything first: what SDPA gives without any key is not defined.
    """
    leaves = [x.clone().requires_grad_() for x in tensors]
    q, k, v = (x.flatten(0, -3).transpose(0, 1) for x in leaves)
    mask = masked(index, q.shape[1], k.shape[1])
    none = ~mask.any(1)
    out = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask | none[:, None], scale=SCALE)
    out = out.transpose(0, 1).masked_fill(none[:, None, None], 0)
    return out.detach(), *torch.autograd.grad(out, leaves, wave(out))


@pytest.mark.parametrize("op", OPS)
def test_what_pytorch_is_asked_for_is_the_reference_s(op):
    """Of queries that see no key too."""
    tensors, index = on_device("cpu", op, 20, torch.float64)
    if op == "region_attention":
        index[0].mean.zero_()
    out, _, *gradients = results(reference, op, tensors, index, SCALE)
    torch.testing.assert_close(pytorch(tensors, index), (out, *gradients))


def joint(x, parts=2):
    """One of several parts of each row, as of a joint projection."""
    return torch.stack([x] * parts, -3).select(-3, 1)


LAYOUTS = {
    "dense": lambda x: x, "joint": joint, "turned": lambda x: x.mT.contiguous().mT,
    "cut": lambda x: torch.cat([x, x[:, :1]], 1)[:, : x.shape[1]],
    "unaligned": lambda x: torch.cat([x[..., :1], x], -1)[..., 1:],
}  # fmt: skip


@pytest.mark.parametrize("dropout", [0.0, 0.25])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("op", "width"), [(op, width) for op in OPS for width in (20, 32)])
def test_what_the_kernels_are_given_is_what_the_reference_is(monkeypatch, op, width, layout, dropout, poisoned):
    """With the reference in the library's place: strides, padding, indexes and gradients."""
    started = stand_in(monkeypatch)
    tensors, index = outside_case(op, width)
    tensors = [x.float() for x in tensors]
    options = *index, SCALE, dropout, torch.tensor([-5])
    laid_out = [LAYOUTS[layout](x) for x in tensors]
    out, lse = getattr(cuda, op)(*laid_out, *options)
    grad = LAYOUTS[layout](wave(out))
    found = out, lse, *getattr(cuda, f"{op}_backward")(grad, *laid_out, out, lse, *options)
    wanted = results(reference, op, tensors, index, SCALE, dropout, options[-1])
    torch.testing.assert_close(found, wanted)
    assert len(started) == 2 and all(call.struct.width == 32 for call in started)
    copied = layout in ("turned", "unaligned") or width == 20 or (layout == "cut" and op == "region_attention")
    assert (started[0].struct.k == laid_out[1].data_ptr()) is not copied


@pytest.mark.parametrize("width", [20, 32])
@pytest.mark.parametrize("make", [joint, torch.clone, LAYOUTS["turned"]])
def test_gradients_of_some_images_leave_the_others(monkeypatch, width, make):
    started = stand_in(monkeypatch)
    (q, k, v), (regions,) = case("region_attention", width)
    q, k, v = (x.float() for x in (q, k, v))
    wanted = results(reference, "region_attention", (q, k, v), (regions,), SCALE)
    to = make(torch.full_like(q, torch.nan)), make(torch.empty_like(k[:2])), make(torch.empty_like(v[:2]))
    for first in (0, 2):
        part = replace(regions, image=regions.image - first)
        args = wave(q), q, k[first : first + 2], v[first : first + 2], *wanted[:2], part, SCALE, 0.0, None
        assert cuda.region_attention_backward(*args, to) is to
        torch.testing.assert_close(to[1:], (wanted[3][first : first + 2], wanted[4][first : first + 2]))
    torch.testing.assert_close(to[0], wanted[2])
    assert all(call.struct.partial and call.struct.backward for call in started)


@pytest.mark.parametrize(("queries", "keys"), [(128, 63), (63, 128)])
def test_the_plan_has_room_for_whatever_the_indexes_say(monkeypatch, queries, keys):
    """In words: 8 for a view of each query, 4 for an item, and 4 for a tile; each item may begin one of 64 rows."""
    q, k, cu = torch.ones(queries, 3, 32), torch.ones(keys, 3, 32), torch.tensor([0, 1, 2]).int()
    started = stand_in(monkeypatch)
    out, lse = called_eagerly(cuda.varlen_attention, q, k, k, cu, cu, 1.0, 0.0, None)
    called_eagerly(cuda.varlen_attention_backward, q, q, k, k, out, lse, cu, cu, 1.0, 0.0, None)
    made = called_eagerly(plan.plan_of, (cu, cu), q, k, 0)
    ends = made.plan.items, made.plan.query_tiles, made.plan.key_tiles, made.room.data_ptr() + made.room.nbytes
    sizes = [(b - a) // 4 for a, b in pairwise((made.plan.views, *ends))]
    assert sizes == [8 * queries, 4 * 2, 4 * (queries // 64 + 2), 4 * (keys // 64 + 2)]
    assert all(call.struct.plan.views == made.plan.views for call in started)
    (states,) = (x for x in started[1].alive if x.data_ptr() == started[1].struct.states)
    assert states.shape == (queries * 3, 4)


def test_nothing_starts_for_no_image_or_sequence(monkeypatch, poisoned):
    started = stand_in(monkeypatch)
    q, k, none = torch.ones(3, 1, 32), torch.ones(2, 1, 32), torch.tensor([0]).int()
    found = results(cuda, "varlen_attention", (q, k, k), (none, none), SCALE)
    assert not started and found[1].isneginf().all() and not any(x.any() for x in (found[0], *found[2:]))


def test_heads_wider_than_any_kernel_are_an_error():
    q, cu = torch.ones(3, 1, 129), torch.tensor([0, 3]).int()
    with pytest.raises(ValueError, match="heads of 129: the cuda kernels go up to 128"):
        cuda.varlen_attention(q, q, q, cu, cu, 1.0, 0.0, None)


@pytest.mark.gpu
@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", WIDTHS)
def test_error_is_at_most_twice_that_of_pytorch(gpu, op, dtype, width, poisoned):
    """PyTorch knows no mean token: it and dropout are compared with fp64 below."""
    tensors, index = on_device(gpu, op, width, dtype)
    if op == "region_attention":
        index[0].mean.zero_()
    exact = results(reference, op, [x.double() for x in tensors], index, SCALE)
    ours, theirs = results(cuda, op, tensors, index, SCALE), pytorch(tensors, index)
    names, without_lse = ("out", "dq", "dk", "dv"), ((x[0], *x[2:]) for x in (ours, exact))
    for name, b, a, wanted in zip(names, theirs, *without_lse, strict=True):
        floor = torch.finfo(dtype).eps * rms(wanted) / 4
        assert rms(a.double() - wanted) <= max(2 * rms(b.double() - wanted), floor), name


@pytest.mark.gpu
@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize(
    "options", [{}, {"grid": (5, 7), "prefix": 3}, {"grid": (1, 1)}, {"grid": (32, 32), "prefix": 0}]
)
def test_equals_fp64_reference(gpu, op, dtype, dropout, options, poisoned):
    """With rows and keys of nobody before and after."""
    tensors, index = on_device(gpu, op, 64, dtype, outside_case, **options)
    seed = torch.tensor([-5], device=gpu)
    exact = results(reference, op, [x.double() for x in tensors], index, SCALE, dropout, seed)
    for name, a, wanted in zip(NAMES, results(cuda, op, tensors, index, SCALE, dropout, seed), exact, strict=True):
        assert torch.equal(a.isinf(), wanted.isinf()), name
        a, wanted = a.clamp(min=-1e4).double(), wanted.clamp(min=-1e4)
        bound = max(4 * torch.finfo(dtype).eps, 5e-6) * float(wanted[wanted > -1e4].abs().max())
        assert float((a - wanted).abs().max()) <= bound, name


@pytest.mark.gpu
def test_same_bits_every_time(gpu):
    tensors, index = on_device(gpu, "region_attention", 64, torch.bfloat16)
    first = results(cuda, "region_attention", tensors, index, SCALE)
    for _ in range(5):
        again = results(cuda, "region_attention", tensors, index, SCALE)
        torch.testing.assert_close(again, first, rtol=0, atol=0)


@pytest.mark.gpu
def test_strided_inputs(gpu, poisoned):
    """Slices of one joint projection, as the encoders make them, and layouts that need a copy."""
    (q, k, v), index = on_device(gpu, "region_attention", 64)
    wanted = results(cuda, "region_attention", (q, k, v), index, SCALE)
    joint = torch.stack([k, v], 2)
    sliced = (torch.stack([q, q], 1)[:, 1], joint[:, :, 0], joint[:, :, 1])
    turned = (q.mT.contiguous().mT, torch.cat([k, k], 1)[:, : k.shape[1]], v)
    unaligned = (q, k, torch.cat([v[..., :1], v], -1)[..., 1:])
    for inputs in (sliced, turned, unaligned):
        found = results(cuda, "region_attention", inputs, index, SCALE)
        torch.testing.assert_close(found, wanted, rtol=0, atol=0)


@pytest.mark.gpu
def test_runs_on_the_current_stream(gpu):
    tensors, index = on_device("cpu", "region_attention", 64)
    host, index = [x.pin_memory() for x in tensors], moved(index, gpu)
    wanted = cuda.region_attention(*(x.to(gpu) for x in host), *index, SCALE, 0.0, None)[0]
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        busy = torch.randn(4000, 4000, device=gpu)
        for _ in range(20):
            busy = busy @ busy
        late = [x.to(gpu, non_blocking=True) for x in host]
        out = cuda.region_attention(*late, *index, SCALE, 0.0, None)[0]
    stream.synchronize()
    torch.testing.assert_close(out, wanted, rtol=0, atol=0)


@pytest.mark.gpu
def test_never_waits_for_the_device(gpu):
    tensors, index = on_device(gpu, "region_attention", 64)
    grad, seed = torch.ones_like(tensors[0]), torch.tensor([3], device=gpu)
    torch.cuda.set_sync_debug_mode("error")
    try:
        out, lse = cuda.region_attention(*tensors, *index, SCALE, 0.1, seed)
        cuda.region_attention_backward(grad, *tensors, out, lse, *index, SCALE, 0.1, seed)
    finally:
        torch.cuda.set_sync_debug_mode("default")
