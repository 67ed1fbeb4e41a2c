"""The `cuda` backend on a GPU, against the reference in fp64 and PyTorch's own attention; elsewhere what it refuses."""

from itertools import pairwise

import pytest
import torch
from support.attention_cases import NAMES, case, moved, outside_case, results, rms, wave

from relvlm_kernels import Regions, cuda, eager

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
    out, _, *gradients = results(eager, op, tensors, index, SCALE)
    torch.testing.assert_close(pytorch(tensors, index), (out, *gradients))


@pytest.mark.gpu
@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", WIDTHS)
def test_error_is_at_most_twice_that_of_pytorch(gpu, op, dtype, width, poisoned):
    """PyTorch knows no mean token: it and dropout are compared with fp64 below."""
    tensors, index = on_device(gpu, op, width, dtype)
    if op == "region_attention":
        index[0].mean.zero_()
    exact = results(eager, op, [x.double() for x in tensors], index, SCALE)
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
    exact = results(eager, op, [x.double() for x in tensors], index, SCALE, dropout, seed)
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
