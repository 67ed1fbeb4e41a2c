"""How kernels start: with which options, on which layouts, and when not at all."""

import pytest
import torch
from support.on_device import DEVICE

pytest.importorskip("triton", reason="triton is not installed")
from relvlm_kernels.triton import launch

X = torch.ones(2, 3, device=DEVICE)


@pytest.fixture
def started(monkeypatch):
    """(kernel, programs, arguments) of all that would start."""
    found = []
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(launch, "start", lambda *args: found.append(args))
    return found


def test_nothing_starts_where_there_is_nothing_to_do(started):
    launch.launch("kernel", 0, {"x": X})
    assert not started
    launch.launch("kernel", 1, {"rows": 2, "x": X})
    assert started == [("kernel", 1, {"rows": 2, "x": X, "num_warps": 4, "num_stages": 1})]


@pytest.mark.parametrize(("registers", "more"), [(None, {}), (168, {"maxnreg": 168})])
def test_registers_are_limited_where_asked(started, registers, more):
    launch.launch("kernel", 5, {"x": X}, warps=8, stages=2, registers=registers)
    assert started == [("kernel", 5, {"x": X, "num_warps": 8, "num_stages": 2} | more)]


def test_amd_has_neither_a_limit_nor_tiles_in_flight(started, monkeypatch):
    monkeypatch.setattr(torch.version, "hip", "6.0")
    launch.launch("kernel", 5, {"x": X}, warps=8, stages=3, registers=168)
    assert started == [("kernel", 5, {"x": X, "num_warps": 8, "num_stages": 1})]


def test_rows_are_copied_only_where_they_are_not_dense():
    dense = X.expand(4, 2, 3)[:, :1]
    assert launch.dense_rows(dense) is dense
    copy = launch.dense_rows(X.T)
    assert copy.stride() == (2, 1) and torch.equal(copy, X.T)
