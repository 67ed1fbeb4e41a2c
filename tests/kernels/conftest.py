"""What the tests of the ops share."""

import pytest
import torch
from support.attention_cases import poisoning

from relvlm_kernels import backends, cpu


def usable(name):
    missing = backends.BACKENDS[name].missing
    if missing:
        pytest.skip(f"{name} kernels: {missing}")
    return backends.BACKENDS[name].ops


@pytest.fixture(params=["reference", "cpu"])
def backend(request, monkeypatch):
    """The ops run on each of the backends for CPU tensors in turn."""
    usable(request.param)
    monkeypatch.setenv("RELVLM_KERNELS", request.param)
    return request.param


@pytest.fixture(params=["reference", "cpu", "triton"])
def every_backend(request, monkeypatch):
    """As `backend`, with that of Triton in its interpreter."""
    kernels = usable(request.param)
    reason = kernels.refusal(torch.device("cpu"), torch.float32, 32)
    if reason:
        pytest.skip(f"{request.param} kernels: {reason}")
    monkeypatch.setenv("RELVLM_KERNELS", request.param)
    return kernels


@pytest.fixture(params=["baseline", "avx2", "avx512"])
def instructions(request):
    """The CPU kernels of each instruction set in turn."""
    select, before = usable("cpu") and cpu.library.LIBRARY.loaded.relvlm_select, cpu.instructions()
    if not select(request.param.encode()):
        pytest.skip(f"{request.param}: not compiled, or not of this processor")
    yield request.param
    select(before.encode())


@pytest.fixture(params=[1, 3])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.fixture
def poisoned(monkeypatch):
    """Memory begins as NaN: what a kernel leaves unwritten shows."""
    for of, name in ((torch, "empty"), (torch, "empty_like"), (torch.Tensor, "new_empty")):
        monkeypatch.setattr(of, name, poisoning(getattr(of, name)))


@pytest.fixture
def gpu():
    usable("cuda")
    return torch.device("cuda")
