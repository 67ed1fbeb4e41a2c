"""Whether the CUDA library can be used: what the build said, what a trial on the GPU shows, how wide heads may be."""

import re
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
import torch

from relvlm_kernels import backends, cuda, native, ops
from relvlm_kernels.cuda import library

GPU = torch.device("cuda", 0)


class Stub(native.Library):
    """A library whose functions give the numbers that are set."""

    def __init__(self, **numbers):
        super().__init__("cuda", "relvlm_cuda_", ())
        self.numbers, self.calls = numbers, []

    def call(self, function, *arguments):
        self.calls.append(function)
        return self.numbers[function]

    def text(self, function, *arguments):
        return f"error {arguments[0]}"


@pytest.fixture
def stub(monkeypatch):
    """On a GPU of sm_90."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "GPU")
    made = Stub(trial=0, shared_bytes=100_000, shared_limit=101_376)
    monkeypatch.setattr(library, "LIBRARY", made)
    library._trial.cache_clear()
    yield made
    library._trial.cache_clear()


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


def test_takes_no_fp64_and_no_tensors_of_the_cpu(stub):
    assert "no kernels for torch.float64" in cuda.refusal(GPU, torch.float64, None)
    assert "no kernels for torch.float32 on cpu" in cuda.refusal(torch.device("cpu"), torch.float32, None)
    assert stub.calls == []


def test_a_gpu_is_tried_once(stub):
    for _ in range(3):
        assert cuda.refusal(GPU, torch.bfloat16, None) == ""
    assert stub.calls == ["trial"]


def test_a_trial_that_fails_is_the_reason(stub):
    """As with a driver that is older than the toolkit."""
    stub.numbers["trial"] = 35
    assert cuda.refusal(GPU, torch.bfloat16, 64) == "a trial of it failed: error 35"


def test_a_gpu_that_is_too_old_is_not_tried(stub, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (7, 5))
    assert cuda.refusal(GPU, torch.bfloat16, 64) == "GPU is older than sm_80" and stub.calls == []


@pytest.mark.parametrize(("there", "refused"), [(100_000, False), (99_999, True)])
def test_heads_that_need_more_shared_memory_than_there_is_are_refused(stub, there, refused):
    stub.numbers["shared_limit"] = there
    wanted = "heads of 128 in torch.bfloat16 need 100000 bytes of shared memory, 99999 are there"
    assert cuda.refusal(GPU, torch.bfloat16, 128) == (wanted if refused else "")
    assert cuda.refusal(GPU, torch.bfloat16, None) == ""  # pooling


def test_heads_wider_than_any_kernel_are_refused(stub):
    assert cuda.refusal(GPU, torch.bfloat16, 129) == "no kernels for heads of 129"
    assert cuda.refusal(GPU, torch.bfloat16, 128) == ""


def test_a_gpu_of_sm_80_is_new_enough(stub, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (8, 0))
    assert cuda.refusal(GPU, torch.bfloat16, None) == ""


def test_a_device_without_a_number_is_the_current_one(monkeypatch):
    tried = []
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 5)
    monkeypatch.setattr(library, "_trial", lambda index: tried.append(index) or "no")
    for device in (torch.device("cuda"), torch.device("cuda", 3)):
        cuda.refusal(device, torch.bfloat16, None)
    assert tried == [5, 3]


@pytest.mark.parametrize(("width", "padded"), [(1, 32), (32, 32), (33, 64), (65, 80), (81, 96), (97, 128), (129, None)])
def test_heads_are_padded_to_the_next_kernel_s(width, padded):
    assert library.padded_width(width) == padded


def test_elements_have_the_numbers_of_the_c_header():
    text = (Path(__file__).parents[3] / "csrc/cuda/call.h").read_text()
    theirs = dict(re.findall(r"(\w+) = (\d)", re.search(r"enum Element .*?{(.*?)}", text)[1]))
    ours = {str(dtype).removeprefix("torch.").upper(): str(number) for dtype, number in library.ELEMENTS.items()}
    assert ours == theirs


def test_what_is_copied_at_once_is_aligned():
    flat = torch.arange(64.0)
    assert library.dense(flat[4:]).data_ptr() == flat[4:].data_ptr()
    for part in (flat[1:], flat[2:]):
        copy = library.dense(part)
        assert copy.data_ptr() % 16 == 0 and torch.equal(copy, part)


@pytest.mark.parametrize(("status", "raised"), [(0, False), (700, True)])
def test_an_error_of_cuda_is_raised_with_its_text(stub, monkeypatch, status, raised):
    monkeypatch.setattr(library, "current_device", lambda: 0)
    monkeypatch.setattr(library, "current_stream", lambda device: 77 + device)
    stub.numbers["row_sums"] = status
    launch = library.Launch(library.RowSums(), torch.ones(1))
    with pytest.raises(RuntimeError, match="row_sums: error 700") if raised else nullcontext():
        launch.run("row_sums")
    assert (launch.struct.stream, launch.struct.device) == (77, 0)


def test_kernels_of_another_device_start_there_and_leave_the_current_one(stub, monkeypatch):
    entered = []

    @contextmanager
    def device(index):
        entered.append(index)
        yield

    monkeypatch.setattr(torch.cuda, "device", device)
    monkeypatch.setattr(library, "current_stream", lambda device: 77)
    stub.numbers["row_sums"] = 0
    for current in (0, 3):
        monkeypatch.setattr(library, "current_device", lambda current=current: current)
        library.Launch(library.RowSums(), torch.ones(1)).run("row_sums")
    assert entered == [0]


@pytest.mark.gpu
def test_a_gpu_takes_the_kernels(gpu):
    """Its driver is new enough, and the library has code for it."""
    device = torch.device("cuda", torch.cuda.current_device())
    assert [cuda.refusal(device, dtype, 64) for dtype in library.ELEMENTS] == [""] * 3
