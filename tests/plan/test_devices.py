"""The figures of the makers' data sheets."""

from relvlm.plan.devices import DEVICES, GIB, Device


def test_gpus_are_as_their_data_sheets_say():
    """Dense bf16, memory, NVLink and network of one direction."""
    assert GIB == 1024**3
    assert {
        "a100-40": Device(312e12, 42_949_672_960, 300e9, 200e9 / 8),
        "a100-80": Device(312e12, 85_899_345_920, 300e9, 200e9 / 8),
        "h100": Device(989e12, 85_899_345_920, 450e9, 400e9 / 8),
        "h200": Device(989e12, 141_000_000_000, 450e9, 400e9 / 8),
        "b200": Device(2250e12, 180_000_000_000, 900e9, 400e9 / 8),
    } == DEVICES
