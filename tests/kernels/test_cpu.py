"""The C++ kernels against the reference in fp64: every gradient, odd sizes and dtypes, any layout, any threads."""

import os
import subprocess
import sys

import pytest
import torch
from support.closeness import assert_as_close_as

from relvlm_kernels import Regions, backends, cpu, eager, ops

MISSING = backends.BACKENDS["cpu"].missing
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"cpu kernels: {MISSING}")

WIDTHS = [5, 8, 16, 32, 64, 80, 96]
INSTRUCTIONS = ["baseline", "avx2", "avx512"]
NAMES = ("out", "dq", "dk", "dv")


@pytest.fixture(params=INSTRUCTIONS)
def instructions(request):
    before = cpu.instructions()
    if not cpu.select_instructions(request.param):
        pytest.skip(f"{request.param}: not compiled, or not of this processor")
    yield request.param
    cpu.select_instructions(before)


@pytest.fixture(params=[1, 3])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.fixture
def poisoned(monkeypatch):
    """Outputs begin as NaN: what a kernel leaves unwritten shows."""
    plain = cpu.attention._output

    def poison(*args):
        return plain(*args).fill_(torch.nan)

    monkeypatch.setattr(cpu.attention, "_output", poison)


def region_case(width, grid=(5, 7), prefix=1, images=4, groups=13, heads=3, seed=0):
    """Random boxes and flags; a group without tokens, one-patch boxes, equal neighbours, an image without group."""
    generator = torch.Generator().manual_seed(seed)

    def draw(high, *shape):
        return torch.randint(0, high, shape, generator=generator)

    lengths = draw(9, groups)
    lengths[1], lengths[2] = 0, 77  # more than one tile of queries
    low = torch.stack([draw(grid[1], groups), draw(grid[0], groups)], 1)
    high = torch.minimum(low + 1 + draw(6, groups, 2), torch.tensor([grid[1], grid[0]]))
    box = torch.cat([low, high], 1)
    box[3, 2:] = box[3, :2] + 1
    box[4:7] = torch.tensor([0, 0, grid[1], grid[0]])
    image = draw(images - 1, groups)
    image[4:7] = 0
    flags = draw(2, 2, groups).bool()
    flags[:, 4:6] = True
    regions = Regions(torch.cat([torch.zeros(1), lengths.cumsum(0)]).int(), image.int(), box.int(), *flags, grid)
    tokens = prefix + grid[0] * grid[1]
    shapes = [(int(lengths.sum()), heads, width), *[(images, tokens, heads, width)] * 2]
    return [torch.randn(s, dtype=torch.float64, generator=generator) for s in shapes], regions


def varlen_case(width, heads=3, seed=0):
    """Sequences of 0 to 90 queries and 1 to 70 keys, numbers of their own."""
    generator = torch.Generator().manual_seed(seed)
    lengths_q, lengths_k = torch.tensor([3, 0, 17, 90, 1, 8]), torch.tensor([7, 4, 16, 70, 1, 33])
    cu_q, cu_k = (torch.cat([torch.zeros(1), n.cumsum(0)]).int() for n in (lengths_q, lengths_k))
    rows = [int(lengths_q.sum()), *[int(lengths_k.sum())] * 2]
    tensors = [torch.randn(n, heads, width, dtype=torch.float64, generator=generator) for n in rows]
    return tensors, (cu_q, cu_k)


def results(module, op, tensors, index, scale, dropout=0.0, seed=None):
    """Output and gradients, the output's gradient being a fixed function of its place."""
    out, lse = getattr(module, op)(*tensors, *index, scale, dropout, seed)
    grad = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).sin().view(out.shape).to(out.dtype)
    return out, *getattr(module, f"{op}_backward")(grad, *tensors, out, lse, *index, scale, dropout, seed)


def case(op, width, **options):
    if op == "region_attention":
        tensors, regions = region_case(width, **options)
        return tensors, (regions,)
    return varlen_case(width)


def error(found, wanted):
    return float((found.double() - wanted).abs().max() / wanted.abs().max())


def rms(x):
    return float(x.square().mean().sqrt())


@pytest.mark.parametrize("op", ["region_attention", "varlen_attention"])
@pytest.mark.parametrize("width", WIDTHS)
def test_equals_fp64_reference(op, width, instructions, threads, poisoned):
    tensors, index = case(op, width)
    wanted = results(eager, op, tensors, index, 0.3)
    torch.testing.assert_close(results(cpu, op, tensors, index, 0.3), wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("op", ["region_attention", "varlen_attention"])
@pytest.mark.parametrize("width", WIDTHS)
def test_fp32_error_is_at_most_twice_that_of_the_reference(op, width, instructions, poisoned):
    tensors, index = case(op, width)
    single = [x.float() for x in tensors]
    wanted = results(eager, op, [x.double() for x in single], index, width**-0.5)
    ours = results(cpu, op, single, index, width**-0.5)
    theirs = results(eager, op, single, index, width**-0.5)
    assert_as_close_as(*(dict(zip(NAMES, found, strict=True)) for found in (ours, theirs, wanted)))


def sdpa(tensors, index, scale):
    """PyTorch's own attention in the tensors' dtype, and its gradients: keys gathered for each group or sequence."""
    q, k, v = (x.clone().requires_grad_() for x in tensors)
    cu_q, cu_k = index
    outs = []
    for a, b, c, d in zip(cu_q, cu_q[1:], cu_k, cu_k[1:], strict=False):
        parts = (x.transpose(0, 1)[None] for x in (q[a:b], k[c:d], v[c:d]))
        outs.append(torch.nn.functional.scaled_dot_product_attention(*parts, scale=scale)[0].transpose(0, 1))
    out = torch.cat(outs)
    grad = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).sin().view(out.shape).to(out.dtype)
    return out.detach(), *torch.autograd.grad(out, (q, k, v), grad)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("width", [32, 64, 80, 96, 128])
def test_error_is_at_most_twice_that_of_pytorchs_attention(width, dtype, instructions, poisoned):
    tensors, index = varlen_case(width)
    tensors = [x.to(dtype) for x in tensors]
    wanted = results(eager, "varlen_attention", [x.double() for x in tensors], index, width**-0.5)
    ours = results(cpu, "varlen_attention", tensors, index, width**-0.5)
    theirs = sdpa(tensors, index, width**-0.5)
    assert all(x.dtype == dtype for x in ours)
    assert_as_close_as(*(dict(zip(NAMES, found, strict=True)) for found in (ours, theirs, wanted)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_fp32_rounded_once(dtype, instructions, poisoned):
    """Region attention of rounded inputs: what fp32 gives, but for the rounding of the result."""
    tensors, index = case("region_attention", 24)
    tensors = [x.to(dtype) for x in tensors]
    wanted = results(cpu, "region_attention", [x.float() for x in tensors], index, 0.2)
    found = results(cpu, "region_attention", tensors, index, 0.2)
    torch.testing.assert_close(found[0], wanted[0].to(dtype), rtol=2 * torch.finfo(dtype).eps, atol=1e-6)
    for a, b in zip(found, wanted, strict=True):
        assert rms(a.float() - b) <= torch.finfo(dtype).eps * rms(b)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_keeps_infinities_zeros_and_the_smallest_numbers(dtype, instructions):
    """One key a sequence: the values come out as they went in."""
    info = torch.finfo(dtype)
    values = [0.0, info.max, info.tiny, info.smallest_normal / 8, -1.0, torch.inf, -torch.inf, torch.nan]
    v = torch.tensor(values, dtype=dtype).view(8, 1, 1)
    rows = torch.arange(9).int()
    out, _ = cpu.varlen_attention(torch.zeros_like(v), torch.zeros_like(v), v, rows, rows, 1.0, 0.0, None)
    torch.testing.assert_close(out, v, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("op", ["region_attention", "varlen_attention"])
def test_dropout_equals_the_reference(op, dtype, instructions, poisoned):
    """The same mask to the last bit, forward and backward, with the mean token, at a seed of 64 bits."""
    tensors, index = case(op, 16)
    tensors, options = [x.to(dtype) for x in tensors], (0.3, 0.4, torch.tensor([-(2**61) + 12345]))
    found, plain = (results(module, op, tensors, index, *options) for module in (cpu, eager))
    if dtype == torch.float64:
        torch.testing.assert_close(found, plain, rtol=1e-10, atol=1e-12)
    else:
        truth = results(eager, op, [x.double() for x in tensors], index, *options)
        assert_as_close_as(found, plain, truth)


@pytest.mark.parametrize(
    "options",
    [
        {"prefix": 0},
        {"prefix": 3},
        {"grid": (1, 1)},
        {"grid": (14, 14), "groups": 40},
        {"grid": (3, 33), "images": 2},
        {"grid": (24, 24), "images": 2, "heads": 1},
        {"grid": (32, 32), "images": 2, "heads": 1},
    ],
)
def test_grids_and_prefixes(options, instructions, poisoned):
    tensors, index = case("region_attention", 16, **options)
    wanted = results(eager, "region_attention", tensors, index, 0.25)
    found = results(cpu, "region_attention", tensors, index, 0.25)
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)


def test_large_scores_do_not_overflow(instructions):
    """They are off by 1e-3 themselves, hence the large errors."""
    tensors, index = case("varlen_attention", 16)
    single = [x.float() * 30 for x in tensors]
    wanted = results(eager, "varlen_attention", [x.double() for x in single], index, 1.0)
    theirs = results(eager, "varlen_attention", single, index, 1.0)
    for a, b, exact in zip(results(cpu, "varlen_attention", single, index, 1.0), theirs, wanted, strict=True):
        assert error(a, exact) < 2 * error(b, exact) < 0.5


def test_nan_in_a_key_reaches_its_queries_alone():
    tensors, (regions,) = case("region_attention", 16)
    q, k, v = (x.float() for x in tensors)
    k[0] = torch.nan
    out, _ = cpu.region_attention(q, k, v, regions, 0.25, 0.0, None)
    of_image = regions.image[eager._owner(regions.offsets, len(q))] == 0
    assert out[of_image].isnan().all()
    assert not out[~of_image].isnan().any()


def test_strided_inputs(poisoned):
    """Slices of one joint projection, as the encoders make them, and layouts that need a copy."""
    (q, k, v), (regions,) = case("region_attention", 16)
    wanted = results(eager, "region_attention", (q, k, v), (regions,), 0.25)
    joint = torch.stack([k, v], 2)
    sliced = (torch.stack([q, q], 1)[:, 1], joint[:, :, 0], joint[:, :, 1])
    heads_first = (q.transpose(0, 1).contiguous().transpose(0, 1), k.mT.contiguous().mT, v.flip(0).flip(0))
    gaps = (q, torch.cat([k, k], 1)[:, : k.shape[1]], v)
    for inputs in (sliced, heads_first, gaps):
        torch.testing.assert_close(results(cpu, "region_attention", inputs, (regions,), 0.25), wanted)


def test_expanded_gradient():
    (q, k, v), index = case("varlen_attention", 16)
    saved = q, k, v, *cpu.varlen_attention(q, k, v, *index, 0.25, 0.0, None), *index, 0.25, 0.0, None
    found = cpu.varlen_attention_backward(torch.ones((), dtype=q.dtype).expand(q.shape), *saved)
    wanted = cpu.varlen_attention_backward(torch.ones_like(q), *saved)
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)


def test_one_token_per_image_with_any_stride(poisoned):
    (q, k, v), (regions,) = case("region_attention", 16, grid=(1, 1), prefix=0)
    odd = k.as_strided(k.shape, (k.stride(0), 999, *k.stride()[2:]))
    wanted = results(eager, "region_attention", (q, k, v), (regions,), 0.25)
    torch.testing.assert_close(results(cpu, "region_attention", (q, odd, v), (regions,), 0.25), wanted)


def test_same_bits_whatever_the_threads():
    tensors, index = case("region_attention", 32)
    before = torch.get_num_threads()
    found = []
    for count in (1, 4):
        torch.set_num_threads(count)
        found.append(results(cpu, "region_attention", tensors, index, 0.2))
    torch.set_num_threads(before)
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)


@pytest.mark.parametrize("op", ["region_attention", "varlen_attention"])
def test_gradcheck(op):
    if op == "region_attention":
        tensors, regions = region_case(3, grid=(2, 2), images=2, groups=7, heads=1)
        regions = regions.pick(torch.tensor([0, 3, 5]), torch.tensor([0, 2, 3, 5]).int())
        inputs, index = [tensors[0][:5], *tensors[1:]], (regions,)
    else:
        inputs = [torch.randn(n, 1, 3, dtype=torch.float64) for n in (5, 7, 7)]
        index = torch.tensor([0, 2, 2, 5]).int(), torch.tensor([0, 4, 5, 7]).int()
    assert backends.chosen("cpu", torch.float64).name == "cpu"
    inputs = [x.requires_grad_() for x in inputs]
    assert torch.autograd.gradcheck(lambda *x: getattr(ops, op)(*x, *index), inputs)


def test_nothing_to_do(poisoned):
    (_, k, v), _ = case("region_attention", 16)
    none = torch.zeros(0, dtype=torch.int32)
    regions = Regions.whole(torch.zeros(1, dtype=torch.int32), none, (5, 7))
    out, dq, dk, dv = results(cpu, "region_attention", (k.new_zeros(0, 3, 16), k, v), (regions,), 0.25)
    assert out.shape == dq.shape == (0, 3, 16)
    assert not dk.any() and not dv.any()


def test_sequence_without_keys_gives_zeros(poisoned):
    q, k, v = (torch.randn(n, 2, 8) for n in (5, 3, 3))
    cu_q, cu_k = torch.tensor([0, 2, 5]).int(), torch.tensor([0, 3, 3]).int()
    out, dq, _, _ = results(cpu, "varlen_attention", (q, k, v), (cu_q, cu_k), 0.25)
    assert out[:2].all() and not out[2:].any() and not dq[2:].any()


def box_case(width=24, prefix=1, dtype=torch.float64):
    _, regions = region_case(4, prefix=prefix)
    generator = torch.Generator().manual_seed(6)
    x = torch.randn(4, prefix + 35, width, dtype=torch.float64, generator=generator).to(dtype)
    grad = torch.randn(len(regions.image), width, dtype=torch.float64, generator=generator).to(dtype)
    return x, grad, (regions.box, regions.image, regions.grid)


@pytest.mark.parametrize("width", [1, 5, 16, 40])
@pytest.mark.parametrize("prefix", [0, 1, 3])
def test_box_mean_equals_the_reference(width, prefix, instructions, threads):
    x, grad, boxes = box_case(width, prefix)
    torch.testing.assert_close(cpu.box_mean(x, *boxes), eager.box_mean(x, *boxes))
    found, wanted = (m.box_mean_backward(grad, x, *boxes) for m in (cpu, eager))
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_box_mean_of_other_dtypes(dtype, instructions):
    x, grad, boxes = box_case(dtype=dtype)
    eps = torch.finfo(dtype).eps
    found, wanted = cpu.box_mean(x, *boxes), eager.box_mean(x.double(), *boxes)
    assert found.dtype == dtype and error(found, wanted) < 2 * eps
    found = cpu.box_mean_backward(grad, x, *boxes)
    assert error(found, eager.box_mean_backward(grad.double(), x.double(), *boxes)) < 2 * eps


def test_box_mean_of_slices_and_of_nothing():
    x, grad, (box, image, grid) = box_case()
    wanted = cpu.box_mean(x, box, image, grid)
    for layout in (torch.cat([x, x], 2)[..., :24], torch.cat([x, x], 1)[:, :36], x.mT.contiguous().mT):
        torch.testing.assert_close(cpu.box_mean(layout, box, image, grid), wanted, rtol=0, atol=0)
    torch.testing.assert_close(
        cpu.box_mean_backward(grad[:1].expand(13, -1), x, box, image, grid),
        cpu.box_mean_backward(grad[:1].repeat(13, 1), x, box, image, grid),
    )
    none = box[:0], image[:0], grid
    assert cpu.box_mean(x, *none).shape == (0, 24) and not cpu.box_mean_backward(grad[:0], x, *none).any()


def test_box_mean_refuses_boxes_outside_of_the_grid():
    x, _, (box, image, grid) = box_case()
    with pytest.raises(ValueError, match="box_mean: a group's box is empty or leaves the grid"):
        cpu.box_mean(x, box + 7, image, grid)
    with pytest.raises(ValueError, match="box_mean: a group's image is no row"):
        cpu.box_mean(x, box, image + 4, grid)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("offsets", [0, 2, 1, 3], "offsets must rise"),
        ("offsets", [0, 1, 2, 2], "offsets must rise"),
        ("image", [0, 1, 2], "no row of k and v"),
        ("image", [0, -1, 1], "no row of k and v"),
        ("box", [[0, 0, 2, 2], [0, 0, 3, 1], [0, 0, 1, 1]], "empty or leaves the grid"),
        ("box", [[0, 0, 2, 2], [1, 0, 1, 1], [0, 0, 1, 1]], "empty or leaves the grid"),
    ],
)
def test_refuses_bad_indices(field, value, message):
    indices = {"offsets": [0, 1, 2, 3], "image": [0, 1, 1], "box": [[0, 0, 2, 2]] * 3} | {field: value}
    tensors = {name: torch.tensor(x).int() for name, x in indices.items()}
    regions = Regions(**tensors, prefix=torch.ones(3).bool(), mean=torch.ones(3).bool(), grid=(2, 2))
    q, k = torch.randn(3, 1, 8), torch.randn(2, 5, 1, 8)
    with pytest.raises(ValueError, match=message):
        ops.region_attention(q, k, k, regions)


def test_refuses_mixed_dtypes():
    q, cu = torch.randn(3, 1, 8), torch.tensor([0, 3]).int()
    with pytest.raises(ValueError, match="one dtype"):
        cpu.varlen_attention(q, q.double(), q, cu, cu, 1.0, 0.0, None)


def test_refuses_sequences_of_unequal_number():
    q = torch.randn(3, 1, 8)
    with pytest.raises(ValueError, match="2 offsets of queries, 3 of keys"):
        cpu.varlen_attention(q, q, q, torch.tensor([0, 3]), torch.tensor([0, 1, 3]), 1.0, 0.0, None)


@pytest.mark.parametrize(
    ("wanted", "dtype", "name"),
    [
        (None, torch.float32, "cpu"),
        (None, torch.float64, "cpu"),
        (None, torch.bfloat16, "cpu"),
        (None, torch.float16, "cpu"),
        (None, torch.int32, "reference"),
        ("reference", torch.float32, "reference"),
        ("cpu", torch.float32, "cpu"),
    ],
)
def test_backend_chosen(monkeypatch, wanted, dtype, name):
    monkeypatch.delenv("RELVLM_KERNELS", raising=False)
    if wanted:
        monkeypatch.setenv("RELVLM_KERNELS", wanted)
    assert backends.chosen("cpu", dtype).name == name


def test_the_chosen_backend_is_the_one_that_runs(monkeypatch):
    ran = []
    monkeypatch.setattr(cpu, "varlen_attention", lambda q, *rest: ran.append(1) or (q.clone(), q[..., 0].clone()))
    q, cu = torch.randn(3, 1, 8), torch.tensor([0, 3]).int()
    monkeypatch.delenv("RELVLM_KERNELS", raising=False)
    ops.varlen_attention(q, q, q, cu, cu)
    monkeypatch.setenv("RELVLM_KERNELS", "reference")
    ops.varlen_attention(q, q, q, cu, cu)
    assert ran == [1]


def test_a_backend_asked_for_that_cannot_take_the_tensors_is_an_error(monkeypatch):
    monkeypatch.setenv("RELVLM_KERNELS", "cpu")
    q, cu = torch.ones(3, 1, 8, dtype=torch.int32), torch.tensor([0, 3]).int()
    with pytest.raises(RuntimeError, match=r"no kernels for torch\.int32"):
        ops.varlen_attention(q, q, q, cu, cu, 1.0)


def test_an_unknown_backend_is_an_error_at_import():
    done = subprocess.run(
        [sys.executable, "-c", "import relvlm_kernels"],
        env={"RELVLM_KERNELS": "fast", "PATH": "", "PYTHONPATH": ":".join(sys.path)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode and "RELVLM_KERNELS=fast: no such backend here (usable: reference, cpu)" in done.stderr


def in_a_process(**environment):
    code = "from relvlm_kernels import cpu; print(cpu.instructions(), '|', cpu.description())"
    path = {"PATH": "", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.run([sys.executable, "-c", code], env=path | environment, capture_output=True, text=True)


def test_the_environment_names_the_instructions():
    done = in_a_process(RELVLM_CPU_ISA="baseline")
    assert done.stdout.startswith("baseline | baseline (RELVLM_CPU_ISA), "), done.stderr
    assert "RELVLM_CPU_ISA" not in in_a_process().stdout


def test_instructions_that_are_not_there_are_an_error():
    done = in_a_process(RELVLM_CPU_ISA="mmx")
    assert done.returncode
    assert "RuntimeError: RELVLM_CPU_ISA=mmx: not compiled, or not of this processor" in done.stderr
