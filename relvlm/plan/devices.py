"""What the makers' data sheets say of GPUs: dense FLOP/s, memory, bandwidth within and between nodes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Device:
    """FLOP/s in bf16 without sparsity, bytes, bytes/s of one direction per GPU, and FLOP/s in fp32 without TF32."""

    flops: float
    memory: float
    within_node: float
    between_nodes: float
    fp32: float

    def peak(self, element: int) -> float:
        """FLOP/s on numbers of so many bytes."""
        return self.flops if element == 2 else self.fp32


GIB = 2**30
DEVICES = {  # between nodes: one 200 Gbit/s adapter for each A100, one of 400 for the later ones
    # PCIe 4.0; sums in fp32, which halves its bf16 rate
    "rtx-4090": Device(165e12, 24 * GIB, 32e9, 12.5e9, 82.6e12),
    "a100-40": Device(312e12, 40 * GIB, 300e9, 25e9, 19.5e12),
    "a100-80": Device(312e12, 80 * GIB, 300e9, 25e9, 19.5e12),
    "h100": Device(989e12, 80 * GIB, 450e9, 50e9, 67e12),
    "h200": Device(989e12, 141e9, 450e9, 50e9, 67e12),
    "b200": Device(2250e12, 180e9, 900e9, 50e9, 75e12),
}

# Of names that CUDA gives: (name begins with, dense bf16 FLOP/s, FLOP/s in fp32 without TF32; None is not looked up).
# The first that fits counts. Parts of a GPU (MIG) have rates of their own, which no data sheet says.
NAMES: list[tuple[str, float, float | None]] = [
    ("NVIDIA A100", 312e12, 19.5e12),
    ("NVIDIA H100 PCIe", 756e12, 51e12),
    ("NVIDIA H100 NVL", 835e12, 60e12),
    ("NVIDIA H100 80GB HBM3", 989e12, 67e12),
    ("NVIDIA H200 NVL", 835e12, 60e12),
    ("NVIDIA H200", 989e12, 67e12),
    ("NVIDIA B200", 2250e12, None),
]


def peak_flops(name: str, dtype: str) -> float | None:
    """FLOP/s of a GPU by the name that CUDA gives, in `fp32` or `bf16`; None where it is not known."""
    for start, bf16, fp32 in NAMES:
        if name.startswith(start) and "MIG" not in name:
            return bf16 if dtype == "bf16" else fp32
    return None
