"""Attention forward and backward by either backend, without and with dropout, once: for Nsight to watch."""

from __future__ import annotations

from dataclasses import replace

import torch
from support.shapes import make_batch

from gpu_check.check import Check
from gpu_check.kernels import DROPOUT, calls
from gpu_check.target import backends, target


def main(check: Check) -> None:
    here = target(check)
    usable, _ = backends(here)
    boxed = next(shape for shape in here.shapes() if shape.regions)
    for ops in usable.values():
        for dropout in (0.0, DROPOUT):
            shape = replace(boxed, mean=True, dropout=dropout)
            forward, backward = calls(ops, make_batch(shape, here.device), here, 0)
            forward(), backward()
            if here.device.type == "cuda":  # what is compiled or set up once is behind us
                torch.cuda.synchronize()
                torch.cuda.profiler.start()
            forward(), backward()
            if here.device.type == "cuda":
                torch.cuda.synchronize()
                torch.cuda.profiler.stop()


if __name__ == "__main__":
    main(Check.from_arguments("nsight"))
