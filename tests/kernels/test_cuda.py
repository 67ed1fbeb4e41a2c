"""The `cuda` backend: on a GPU against the reference in fp64 and PyTorch's own attention; elsewhere what it refuses."""

from itertools import pairwise

import pytest
import torch

from relvlm_kernels import Regions, backends, cuda, eager, native, ops
from relvlm_kernels.cuda import attention, library

WIDTHS = [20, 32, 64, 80, 96, 128]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
SCALE = 0.2


@pytest.fixture
def gpu():
    missing = backends.BACKENDS["cuda"].missing
    if missing:
        pytest.skip(f"cuda kernels: {missing}")
    return torch.device("cuda")


@pytest.fixture
def poisoned(monkeypatch):
    """Outputs begin as NaN: what a kernel leaves unwritten shows."""
    plain = attention._output
    monkeypatch.setattr(attention, "_output", lambda like: plain(like).fill_(torch.nan))


def region_case(width, grid=(14, 14), prefix=1, images=5, groups=40, heads=3, seed=0):
    """Random boxes and flags; groups without tokens, one-patch and whole boxes, an image without group."""
    generator = torch.Generator().manual_seed(seed)

    def draw(high, *shape):
        return torch.randint(0, high, shape, generator=generator)

    lengths = draw(9, groups)
    lengths[1], lengths[2] = 0, 150  # more than two tiles of queries
    low = torch.stack([draw(grid[1], groups), draw(grid[0], groups)], 1)
    high = torch.minimum(low + 1 + draw(9, groups, 2), torch.tensor([grid[1], grid[0]]))
    box = torch.cat([low, high], 1)
    box[3, 2:] = box[3, :2] + 1
    box[4:7] = torch.tensor([0, 0, grid[1], grid[0]])
    offsets = torch.cat([torch.zeros(1), lengths.cumsum(0)])
    flags = draw(2, 2, groups).bool()
    regions = Regions(offsets.int(), draw(images - 1, groups).int(), box.int(), *flags, grid)
    shapes = [(int(lengths.sum()), heads, width), *[(images, prefix + grid[0] * grid[1], heads, width)] * 2]
    return [torch.randn(s, generator=generator) for s in shapes], (regions,)


def varlen_case(width, heads=3):
    generator = torch.Generator().manual_seed(1)
    cu_q, cu_k = torch.tensor([0, 3, 3, 20, 22, 190]), torch.tensor([0, 70, 75, 76, 76, 300])
    tensors = [torch.randn(n, heads, width, generator=generator) for n in (190, 300, 300)]
    return tensors, (cu_q.int(), cu_k.int())


def case(op, width, **options):
    return region_case(width, **options) if op == "region_attention" else varlen_case(width)


def to(index, device):
    if isinstance(index[0], Regions):
        fields = ("offsets", "image", "box", "prefix", "mean")
        return (Regions(**{f: getattr(index[0], f).to(device) for f in fields}, grid=index[0].grid),)
    return tuple(x.to(device) for x in index)


def results(module, op, tensors, index, dropout=0.0, seed=None):
    """Output and gradients, the output's gradient being a fixed function of its place."""
    out, lse = getattr(module, op)(*tensors, *index, SCALE, dropout, seed)
    grad = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).sin().view(out.shape).to(out)
    return out, *getattr(module, f"{op}_backward")(grad, *tensors, out, lse, *index, SCALE, dropout, seed)


def masked(index, queries, keys):
    """Bool mask (queries, keys) of all packed queries against all packed keys."""
    if isinstance(index[0], Regions):
        r = index[0]
        group = eager._owner(r.offsets, queries)
        tokens = keys // (int(r.image.max()) + 2)
        prefix = r.prefix[:, None].expand(-1, tokens - r.grid[0] * r.grid[1])
        visible = torch.cat([prefix, r.patch_mask()], 1)[group]
        image = torch.arange(keys, device=group.device) // tokens
        return (image == r.image[group][:, None]) & visible[:, torch.arange(keys, device=group.device) % tokens]
    mask = torch.zeros(queries, keys, dtype=torch.bool, device=index[0].device)
    for (a, b), (c, d) in zip(pairwise(index[0].tolist()), pairwise(index[1].tolist()), strict=True):
        mask[a:b, c:d] = True
    return mask


def pytorch(tensors, index):
    """PyTorch's own attention with a mask, over all packed keys; zeros for queries that see nothing.

    Those see all keys while it computes: of no key at all some of its kernels make NaN, which a gradient of 0 keeps.
    """
    leaves = [x.clone().requires_grad_() for x in tensors]
    q, k, v = (x.flatten(0, -3).transpose(0, 1) for x in leaves)
    mask = masked(index, q.shape[1], k.shape[1])
    blind = ~mask.any(1, keepdim=True)
    out = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask | blind, scale=SCALE)
    out = out.transpose(0, 1).masked_fill(blind[:, None], 0)
    grad = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).sin().view(out.shape).to(out)
    return out.detach(), *torch.autograd.grad(out, leaves, grad)


def rms(x):
    return float(x.square().mean().sqrt())


@pytest.mark.parametrize("op", ["region_attention", "varlen_attention"])
def test_what_pytorch_is_asked_for_is_the_reference_s(op):
    """Of queries that see no key too."""
    tensors, index = case(op, 20)
    if op == "region_attention":
        index[0].mean.zero_()
    exact = results(eager, op, [x.double() for x in tensors], index)
    for found, wanted in zip(pytorch([x.double() for x in tensors], index), exact, strict=True):
        torch.testing.assert_close(found, wanted)


@pytest.mark.gpu
@pytest.mark.parametrize("op", ["region_attention", "varlen_attention"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", WIDTHS)
def test_error_is_at_most_twice_that_of_pytorch(gpu, op, dtype, width, poisoned):
    tensors, index = case(op, width)
    if op == "region_attention":  # PyTorch knows no mean token: it and dropout are compared with fp64 below
        index = (index[0].pick(torch.arange(40), index[0].offsets),)
        index[0].mean.zero_()
    tensors, index = [x.to(gpu, dtype) for x in tensors], to(index, gpu)
    exact = results(eager, op, [x.double() for x in tensors], index)
    ours, theirs = results(cuda, op, tensors, index), pytorch(tensors, index)
    for name, a, b, wanted in zip(("out", "dq", "dk", "dv"), ours, theirs, exact, strict=True):
        floor = torch.finfo(dtype).eps * rms(wanted) / 4
        assert rms(a.double() - wanted) <= max(2 * rms(b.double() - wanted), floor), name


@pytest.mark.gpu
@pytest.mark.parametrize("op", ["region_attention", "varlen_attention"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize(
    "options", [{}, {"grid": (5, 7), "prefix": 3}, {"grid": (1, 1)}, {"grid": (32, 32), "prefix": 0}]
)
def test_equals_fp64_reference(gpu, op, dtype, dropout, options, poisoned):
    tensors, index = case(op, 64, **options)
    tensors, index, seed = [x.to(gpu, dtype) for x in tensors], to(index, gpu), torch.tensor([-5], device=gpu)
    exact = results(eager, op, [x.double() for x in tensors], index, dropout, seed)
    for name, a, wanted in zip(
        ("out", "dq", "dk", "dv"), results(cuda, op, tensors, index, dropout, seed), exact, strict=True
    ):
        bound = max(4 * torch.finfo(dtype).eps, 5e-6) * float(wanted.abs().max())
        assert float((a.double() - wanted).abs().max()) <= bound, name


@pytest.mark.gpu
def test_same_bits_every_time(gpu):
    tensors, index = case("region_attention", 64)
    tensors, index = [x.to(gpu, torch.bfloat16) for x in tensors], to(index, gpu)
    first = results(cuda, "region_attention", tensors, index)
    for _ in range(5):
        torch.testing.assert_close(results(cuda, "region_attention", tensors, index), first, rtol=0, atol=0)


@pytest.mark.gpu
def test_strided_inputs(gpu, poisoned):
    """Slices of one joint projection, as the encoders make them, and layouts that need a copy."""
    tensors, index = case("region_attention", 64)
    (q, k, v), index = [x.to(gpu) for x in tensors], to(index, gpu)
    wanted = results(cuda, "region_attention", (q, k, v), index)
    joint = torch.stack([k, v], 2)
    sliced = (torch.stack([q, q], 1)[:, 1], joint[:, :, 0], joint[:, :, 1])
    odd = (q.mT.contiguous().mT, torch.cat([k, k], 1)[:, : k.shape[1]], torch.cat([v, v], -1)[..., 1:65])
    for inputs in (sliced, (odd[0], odd[1], v)):
        torch.testing.assert_close(results(cuda, "region_attention", inputs, index), wanted, rtol=0, atol=0)
    results(cuda, "region_attention", (q, k, odd[2]), index)  # unaligned: copied


@pytest.mark.gpu
def test_runs_on_the_current_stream(gpu):
    tensors, index = case("region_attention", 64)
    host, index = [x.pin_memory() for x in tensors], to(index, gpu)
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
    tensors, index = case("region_attention", 64)
    tensors, index = [x.to(gpu) for x in tensors], to(index, gpu)
    grad, seed = torch.ones_like(tensors[0]), torch.tensor([3], device=gpu)
    torch.cuda.set_sync_debug_mode("error")
    try:
        out, lse = cuda.region_attention(*tensors, *index, SCALE, 0.1, seed)
        cuda.region_attention_backward(grad, *tensors, out, lse, *index, SCALE, 0.1, seed)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
def test_pooling_equals_fp64_reference(gpu, dtype):
    torch.manual_seed(0)
    _, (regions,) = region_case(32)
    (regions,) = to((regions,), gpu)
    bound = 4 * torch.finfo(dtype).eps
    x, h, weight, bias = (
        torch.randn(s, device=gpu, dtype=dtype) for s in [(5, 197, 768), (90, 768), (300, 1536), (300,)]
    )
    args = regions.box, regions.image, regions.grid
    grad = torch.randn(len(regions.image), 768, device=gpu, dtype=dtype)
    pairs = [
        (cuda.box_mean(x, *args), eager.box_mean(x.double(), *args)),
        (
            cuda.box_mean_backward(grad, x, *args),
            eager.box_mean_backward(grad.double(), x.double(), *args),
        ),
    ]
    for triplets in (70, 200):
        rows = torch.randint(90, (2, triplets), device=gpu)
        inputs = h, *rows, weight, bias
        exact = h.double(), *rows, weight.double(), bias.double()
        out, grad = cuda.mrc_pool(*inputs), torch.randn(triplets, 300, device=gpu, dtype=dtype)
        pairs += [(out, eager.mrc_pool(*exact))]
        pairs += zip(
            cuda.mrc_pool_backward(grad, *inputs, out),
            eager.mrc_pool_backward(grad.double(), *exact, out.double()), strict=True,
        )  # fmt: skip
    for found, wanted in pairs:
        assert rms(found.double() - wanted) <= bound * rms(wanted)


def test_refuses_what_no_kernel_takes():
    q, cu = torch.randn(3, 1, 160), torch.tensor([0, 3]).int()
    with pytest.raises(ValueError, match="heads of 160: the cuda kernels go up to 128"):
        cuda.varlen_attention(q, q, q, cu, cu, 1.0, 0.0, None)
    with pytest.raises(ValueError, match="one dtype of float32, bfloat16, float16"):
        cuda.varlen_attention(q.double(), q.double(), q.double(), cu, cu, 1.0, 0.0, None)
    with pytest.raises(ValueError, match=r"k torch\.float16 on cpu"):
        cuda.varlen_attention(q, q.half(), q, cu, cu, 1.0, 0.0, None)


def test_refuses_sequences_of_unequal_number():
    q = torch.randn(3, 1, 32)
    with pytest.raises(ValueError, match="2 offsets of queries, 3 of keys"):
        cuda.varlen_attention(q, q, q, torch.tensor([0, 3]), torch.tensor([0, 1, 3]), 1.0, 0.0, None)


def test_takes_no_fp64_and_no_tensors_of_the_cpu():
    assert not cuda.takes(torch.device("cuda"), torch.float64)
    assert not cuda.takes(torch.device("cpu"), torch.float32)


def test_a_missing_library_is_said_with_the_build_s_own_reason(monkeypatch, tmp_path):
    monkeypatch.setattr(library, "LIBRARY", native.Library("cuda", "relvlm_cuda_", ()))
    library.LIBRARY.path = tmp_path / "_cuda.so"
    assert cuda.missing() == "_cuda.so: not built (run pip install again in the source tree)"
    (tmp_path / "_cuda.txt").write_text("not built: no nvcc\n")
    assert cuda.missing() == "_cuda.so: not built: no nvcc"


def test_an_op_asked_of_a_backend_that_is_missing_is_an_error(monkeypatch):
    if not backends.BACKENDS["cuda"].missing:
        pytest.skip("the backend is here")
    monkeypatch.setenv("RELVLM_KERNELS", "cuda")
    q, cu = torch.randn(3, 1, 32), torch.tensor([0, 3]).int()
    with pytest.raises(RuntimeError, match="RELVLM_KERNELS=cuda: no such backend here"):
        ops.varlen_attention(q, q, q, cu, cu)
