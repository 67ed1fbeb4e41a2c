"""What MFU is measured by."""

import itertools
import time

import pytest
import torch

from relvlm.config.schema import Config
from relvlm.engine.peak import SIDE, measured_rate, peak_rate


def test_the_config_has_the_last_word():
    assert peak_rate(Config(device_tflops=2.5), torch.device("cuda")) == 2.5e12


@pytest.mark.parametrize(
    ("name", "dtype", "peak"),
    [("NVIDIA H200", "bf16", 989e12), ("NVIDIA H200", "fp32", 67e12), ("Tesla T4", "bf16", None)],
)
def test_a_gpu_is_known_by_its_name_or_nothing_is_said(name, dtype, peak, monkeypatch, caplog):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    with caplog.at_level("INFO"):
        assert peak_rate(Config(dtype=dtype), torch.device("cuda")) == peak
    assert ("mfu is left blank: no FLOP/s are known of Tesla T4 in bf16 (set device_tflops)" in caplog.text) == (
        peak is None
    )


def test_a_cpu_is_measured_by_its_fastest_product(monkeypatch, caplog):
    looks = iter([0, 9, 10, 14, 20, 22, 30, 33])  # seconds: 9, 4, 2, 3
    monkeypatch.setattr(time, "perf_counter", lambda: next(looks))
    with caplog.at_level("INFO"):
        assert peak_rate(Config(), torch.device("cpu")) == 2 * SIDE**3 / 2
    assert "measured now" in caplog.text


def test_measuring_leaves_the_runs_random_numbers_alone(monkeypatch):
    ticks = itertools.count()
    monkeypatch.setattr(time, "perf_counter", lambda: next(ticks))
    torch.manual_seed(3)
    before = torch.get_rng_state()
    measured_rate(torch.float32)
    assert torch.equal(torch.get_rng_state(), before)
