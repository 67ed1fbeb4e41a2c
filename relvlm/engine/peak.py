"""What a device could compute at best, as the measure of what a run makes of it (MFU)."""

from __future__ import annotations

import logging
import time

import torch

from relvlm.config.schema import Config
from relvlm.plan.devices import peak_flops

log = logging.getLogger(__name__)
SIDE, TIMES = 768, 3  # of the product of matrices that a CPU is measured by


def peak_rate(config: Config, device: torch.device) -> float | None:
    """FLOP/s of one rank's device in the run's precision; None, with a word in the log, where nobody knows it."""
    if config.device_tflops:
        return config.device_tflops * 1e12
    if device.type != "cuda":
        rate = measured_rate(torch.bfloat16 if config.dtype == "bf16" else torch.float32)
        log.info(
            "mfu is the share of %.0f GFLOP/s, measured now: a %s product of %d x %d",
            rate / 1e9,
            config.dtype,
            SIDE,
            SIDE,
        )
        return rate
    name = torch.cuda.get_device_name(device)
    peak = peak_flops(name, config.dtype)
    if peak is None:
        log.info("mfu is left blank: no FLOP/s are known of %s in %s (set device_tflops)", name, config.dtype)
    return peak


def measured_rate(dtype: torch.dtype) -> float:
    """FLOP/s of a CPU's product of two matrices, the best of a few; the run's random numbers are left alone."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.rand(SIDE, SIDE, generator=generator).to(dtype) for _ in range(2))
    best = float("inf")
    for _ in range(TIMES + 1):  # the first makes room for the product
        began = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - began)
    return 2 * SIDE**3 / best
