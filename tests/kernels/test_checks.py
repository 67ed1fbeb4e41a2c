"""What is refused, before anything runs: every argument of every op bent in every way; indexes that point elsewhere."""

from itertools import product

import pytest
import torch
from support.op_arguments import ARGUMENTS, bent, call, empty_heads, other_dtypes, other_shapes, tensors_of

from relvlm_kernels import Regions, backends, box_mean, checks, mrc_pool, region_attention, varlen_attention

GOOD = {"offsets": [0, 1, 2, 3], "image": [0, 1, 1], "box": [[0, 0, 2, 2]] * 3}
BAD = [
    ("offsets", [0, 2, 1, 3], "region_attention: offsets must rise"),
    ("offsets", [0, 1, 2, 4], "region_attention: offsets must rise"),
    ("offsets", [-1, 1, 2, 3], "region_attention: offsets must rise"),
    ("image", [0, 1, 2], "region_attention: a group's image is not there"),
    ("image", [0, -1, 1], "region_attention: a group's image is not there"),
    ("box", [[0, 0, 2, 2], [0, 0, 3, 1], [0, 0, 1, 1]], "region_attention: a group's box is empty or leaves"),
    ("box", [[0, 0, 2, 2], [0, 0, 1, 3], [0, 0, 1, 1]], "region_attention: a group's box is empty or leaves"),
    (
        "box",
        [[0, 0, 2, 2], [-1, 0, 1, 1], [0, 0, 1, 1]],
        "region_attention: a group's box is empty or leaves",
    ),
    ("box", [[0, 0, 2, 2], [1, 0, 1, 1], [0, 0, 1, 1]], "region_attention: a group's box is empty or leaves"),
]


def regions(**changed):
    tensors = {name: torch.tensor(x).int() for name, x in (GOOD | changed).items()}
    return Regions(**tensors, prefix=torch.ones(3).bool(), mean=torch.ones(3).bool(), grid=(2, 2))


@pytest.mark.parametrize(("field", "value", "message"), BAD)
def test_groups_that_point_elsewhere_are_refused(every_backend, field, value, message):
    q, k = torch.randn(3, 1, 16), torch.randn(2, 5, 1, 16)
    region_attention(q, k, k, regions())
    with pytest.raises(ValueError, match=message):
        region_attention(q, k, k, regions(**{field: value}))


@pytest.mark.parametrize("cu", [[0, 2, 1, 3], [0, 4], [-1, 3]])
def test_sequences_that_point_elsewhere_are_refused(every_backend, cu):
    q, good, bad = (
        torch.randn(3, 1, 16),
        torch.tensor([0] * (len(cu) - 1) + [3]).int(),
        torch.tensor(cu).int(),
    )
    varlen_attention(q, q, q, good, good)
    for pair in ((bad, good), (good, bad)):
        with pytest.raises(ValueError, match="varlen_attention: offsets must rise"):
            varlen_attention(q, q, q, *pair)


@pytest.mark.parametrize(("field", "value", "message"), [row for row in BAD if row[0] != "offsets"])
def test_boxes_that_point_elsewhere_are_refused(every_backend, field, value, message):
    x, good, bad = torch.randn(2, 5, 8), regions(), regions(**{field: value})
    box_mean(x, good.box, good.image, good.grid)
    with pytest.raises(ValueError, match=message.replace("region_attention", "box_mean")):
        box_mean(x, bad.box, bad.image, bad.grid)


def test_triplets_of_no_rows_are_refused(every_backend):
    h, weight, rows = torch.randn(2, 32), torch.randn(3, 64), torch.tensor([0, 1])
    mrc_pool(h, rows, rows, weight, weight[:, 0])
    for bad in (rows - 1, rows + 1):
        with pytest.raises(ValueError, match="mrc_pool: a triplet's row is no row of h"):
            mrc_pool(h, rows, bad, weight, weight[:, 0])


def test_a_gpu_is_waited_for_where_that_is_asked_for(monkeypatch):
    gpu = torch.device("cuda")
    monkeypatch.delenv("RELVLM_CHECK", raising=False)
    assert checks.wanted(torch.device("cpu")) and not checks.wanted(gpu)
    monkeypatch.setenv("RELVLM_CHECK", "1")
    assert checks.wanted(gpu)


@pytest.fixture
def nothing_runs(monkeypatch):
    """A backend whose ops fail the test: what is refused must not get as far as any."""

    class Ops:
        def refusal(self, device, dtype, width):
            return ""

        def __getattr__(self, op):
            raise AssertionError(f"{op} runs")

    monkeypatch.setenv("RELVLM_KERNELS", "reference")
    monkeypatch.setattr(backends.BACKENDS["reference"], "_ops", Ops())


EVERY = [(op, name) for op in ARGUMENTS for name in tensors_of(op)]


def assert_refused(op, arguments, error, how):
    with pytest.raises(error) as refused:
        call(op, arguments)
    message = str(refused.value)
    assert message.startswith(f"{op}: ") and "\n" not in message and len(message) < 160, (how, message)


@pytest.mark.parametrize("op", ARGUMENTS)
def test_the_arguments_that_are_bent_below_are_good(every_backend, op):
    assert call(op, ARGUMENTS[op]).isfinite().all()


@pytest.mark.parametrize(("op", "name"), EVERY)
def test_every_argument_of_another_shape_is_refused(nothing_runs, op, name):
    for how, bend in other_shapes(op, name):
        arguments = bent(op, name, bend)
        assert_refused(op, arguments, ValueError, how)
        assert_refused(op, on_meta(arguments), ValueError, f"{how}, without data")


def on_meta(arguments):
    return {name: x.to("meta") if isinstance(x, torch.Tensor) else x for name, x in arguments.items()}


@pytest.mark.parametrize("op", ARGUMENTS)
def test_heads_of_no_width_are_refused(nothing_runs, op):
    for arguments in empty_heads(op):
        assert_refused(op, arguments, ValueError, "no width")


@pytest.mark.parametrize(("op", "name"), EVERY)
def test_every_argument_of_another_kind_is_refused(nothing_runs, op, name):
    for dtype in other_dtypes(op, name):
        assert_refused(op, bent(op, name, lambda x, to=dtype: x.to(to)), TypeError, dtype)
    for how in (torch.Tensor.tolist, torch.Tensor.to_sparse, lambda x: None):
        assert_refused(op, bent(op, name, how), TypeError, how)
    assert_refused(op, bent(op, name, lambda x: x.to("meta")), ValueError, "another device")


@pytest.mark.parametrize("dtype", [torch.int32, torch.complex64, torch.bool])
@pytest.mark.parametrize("op", ARGUMENTS)
def test_numbers_that_are_no_floats_are_refused(nothing_runs, op, dtype):
    """All of them alike, so that they fit each other."""
    arguments = {n: x.to(dtype) if getattr(x, "is_floating_point", bool)() else x for n, x in ARGUMENTS[op].items()}
    assert_refused(op, arguments, TypeError, dtype)


@pytest.mark.parametrize("grid", [(0, 2), (2, 0), (-2, -2), (3, 2), (2,), (2, 2, 1), (2.0, 2), "22", None, (1, 32768)])
@pytest.mark.parametrize("op", [op for op in ARGUMENTS if "grid" in ARGUMENTS[op]])
def test_a_grid_that_is_none_or_larger_than_the_tokens_is_refused(nothing_runs, op, grid):
    assert_refused(op, ARGUMENTS[op] | {"grid": grid}, ValueError, grid)


def test_a_grid_may_be_one_patch_and_as_long_as_half_a_word_holds():
    for grid in ((1, 1), (32767, 1), (1, 32767)):
        assert checks.check_grid("op", grid, grid[0] * grid[1]) == grid
    for grid in ((32768, 1), (1, 32768)):
        with pytest.raises(ValueError, match="expected rows and columns from 1 to 32767"):
            checks.check_grid("op", grid)


INDEXES = [(op, name) for op, name in EVERY if ARGUMENTS[op][name].dtype in checks.INDEXES]
FAR = [-1, 10**6, 2**32, -(2**32)]  # the last two are 0 in int32


@pytest.mark.parametrize(("op", "name"), INDEXES)
def test_every_index_that_points_elsewhere_is_refused(every_backend, op, name):
    for far, dtype in product(FAR, checks.INDEXES):
        if abs(far) < 2**31 or dtype == torch.int64:
            moved = bent(op, name, lambda x, to=dtype, by=far: x.to(to) + by)
            filled = bent(op, name, lambda x, to=dtype, by=far: torch.full_like(x, by, dtype=to))
            for arguments in (moved, filled):
                with pytest.raises(ValueError, match=r"^[a-z_]+: "):
                    call(op, arguments)


ROWS = [("q", "[a-z_]+: offsets must rise"), ("qkv", "[a-z_]+: offsets must rise"), ("h", "mrc_pool: a triplet's row")]


INDEXED = [(o, n) for o, n in EVERY if o in dict(INDEXES)]


@pytest.mark.parametrize(("op", "name", "message"), [(o, n, m) for o, n in INDEXED for name, m in ROWS if n == name])
def test_fewer_rows_than_the_indexes_say_are_refused(every_backend, op, name, message):
    for rows in (0, ARGUMENTS[op][name].shape[0] - 1):
        with pytest.raises(ValueError, match=message):
            call(op, bent(op, name, lambda x, rows=rows: x[:rows]))


@pytest.mark.parametrize("op", ARGUMENTS)
def test_indexes_may_be_of_64_bits(every_backend, op):
    long = {n: x.long() if getattr(x, "dtype", None) in checks.INDEXES else x for n, x in ARGUMENTS[op].items()}
    assert torch.equal(call(op, long), call(op, ARGUMENTS[op]))


def test_the_error_names_the_argument_its_shape_and_the_one_expected():
    q, cu = torch.randn(3, 8, 64), torch.tensor([0, 3]).int()
    with pytest.raises(ValueError, match=r"^varlen_attention: k \(3, 1, 64\): expected \(Tk, H, D\) with H = 8$"):
        varlen_attention(q, q[:, :1], q[:, :1], cu, cu)
    with pytest.raises(TypeError, match=r"^varlen_attention: k float64: expected float32, the dtype of q$"):
        varlen_attention(q, q.double(), q, cu, cu)
    with pytest.raises(ValueError, match=r"^varlen_attention: v on meta: expected cpu, the device of q$"):
        varlen_attention(q, q, q.to("meta"), cu, cu)
    with pytest.raises(ValueError, match="5 keys are fewer than the grid's 6 patches"):
        call("region_attention", ARGUMENTS["region_attention"] | {"grid": (3, 2)})
