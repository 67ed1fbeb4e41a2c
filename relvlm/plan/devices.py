"""What the makers' data sheets say of GPUs: dense bf16 FLOP/s, memory, bandwidth within and between nodes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Device:
    """FLOP/s in bf16 without sparsity, bytes, and bytes/s of one direction per GPU."""

    flops: float
    memory: float
    within_node: float
    between_nodes: float


GIB = 2**30
DEVICES = {  # between nodes: one 200 Gbit/s adapter for each A100, one of 400 for the later ones
    "a100-40": Device(312e12, 40 * GIB, 300e9, 25e9),
    "a100-80": Device(312e12, 80 * GIB, 300e9, 25e9),
    "h100": Device(989e12, 80 * GIB, 450e9, 50e9),
    "h200": Device(989e12, 141e9, 450e9, 50e9),
    "b200": Device(2250e12, 180e9, 900e9, 50e9),
}
