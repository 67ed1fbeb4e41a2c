"""Whether the CUDA library can be used: what the build said, what a trial on the GPU shows, how wide heads may be."""

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


@pytest.mark.gpu
def test_a_gpu_takes_the_kernels(gpu):
    """Its driver is new enough, and the library has code for it."""
    device = torch.device("cuda", torch.cuda.current_device())
    assert [cuda.refusal(device, dtype, 64) for dtype in library.ELEMENTS] == [""] * 3
