"""The figures of the makers' data sheets."""

import pytest

from relvlm.plan.devices import DEVICES, GIB, Device, peak_flops


def test_gpus_are_as_their_data_sheets_say():
    """Dense bf16, memory, NVLink (or PCIe) and network of one direction, fp32."""
    assert GIB == 1024**3
    assert {
        "a100-40": Device(312e12, 42_949_672_960, 300e9, 200e9 / 8, 19.5e12),
        "a100-80": Device(312e12, 85_899_345_920, 300e9, 200e9 / 8, 19.5e12),
        "h100": Device(989e12, 85_899_345_920, 450e9, 400e9 / 8, 67e12),
        "h200": Device(989e12, 141_000_000_000, 450e9, 400e9 / 8, 67e12),
        "rtx-4090": Device(165e12, 25_769_803_776, 32e9, 100e9 / 8, 82.6e12),
        "b200": Device(2250e12, 180_000_000_000, 900e9, 400e9 / 8, 75e12),
    } == DEVICES


@pytest.mark.parametrize(
    ("name", "bf16", "fp32"),
    [
        ("NVIDIA A100-SXM4-80GB", 312e12, 19.5e12),
        ("NVIDIA H100 80GB HBM3", 989e12, 67e12),
        ("NVIDIA H100 PCIe", 756e12, 51e12),
        ("NVIDIA H200", 989e12, 67e12),
        ("NVIDIA H200 NVL", 835e12, 60e12),
        ("NVIDIA B200", 2250e12, None),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None, None),
        ("Tesla T4", None, None),
    ],
)
def test_a_gpus_rate_is_known_by_its_name_or_not_at_all(name, bf16, fp32):
    assert (peak_flops(name, "bf16"), peak_flops(name, "fp32")) == (bf16, fp32)
