"""Attention by both backends at the benchmark's and the recipe's shapes, split into plan, attend, dq and dk/dv.

Times are of graph replays over inputs that no cache holds, in the layout of training: keys and values are parts of one
projection, and so are their gradients. The split is the profiler's, of one more replay.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from dataclasses import replace
from statistics import median
from types import ModuleType
from typing import Any

import torch
from attention_times import work
from support.shapes import Batch, Shape, make_batch
from timing import Run, brief, copies_beyond_cache, side_stream, timer
from torch import Tensor

from gpu_check.ceilings import limits
from gpu_check.check import Check
from gpu_check.profiling import Kernel, profiled
from gpu_check.target import Target, backends, target
from relvlm_kernels import region_attention

PARTS = {  # by the names of kernels
    "plan": re.compile(r"plan_(groups|sequences)|^plan$"),
    "attend": re.compile(r"\battend\b|attention_forward"),
    "dq": re.compile(r"backward_of_queries|attention_backward_q"),
    "dkdv": re.compile(r"backward_of_keys|attention_backward_kv"),
}
REPEATS, HOST_CALLS = 5, 100
DROPOUT = 0.1


def main(check: Check) -> None:
    here, most = target(check), limits(check)
    usable, missing = backends(here)
    for name, why in missing.items():
        check.row(what="missing", backend=name, why=why)
    for shape in here.shapes():
        for batch in (make_batch(option, here.device) for option in options(shape, here.toy)):
            for name, ops in usable.items():
                check.row(what="kernels", backend=name, **about(batch), **tried(ops, batch, here, most))
    for name in usable:
        check.row(what="host", backend=name, **host(name, here))


def options(shape: Shape, few: bool = False) -> list[Shape]:
    """Without and with dropout and, where there are boxes, a mean token; or just none and all of it."""
    means = [False, True] if shape.regions else [False]
    every = [replace(shape, mean=mean, dropout=rate) for mean in means for rate in (0.0, DROPOUT)]
    return [every[0], every[-1]] if few else every


def about(batch: Batch) -> dict[str, Any]:
    shape = batch.shape
    return {
        "shape": shape.name,
        "options": shape.options,
        "images": shape.images,
        "queries": int(batch.lengths.sum()),
    }


def tried(ops: ModuleType, batch: Batch, here: Target, most: dict[str, float]) -> dict[str, Any]:
    """What `measure` gives, or its error: one combination that fails stops no other."""
    try:
        return measure(ops, batch, here, most)
    except Exception as error:
        return {"error": brief(error)}


def measure(ops: ModuleType, batch: Batch, here: Target, most: dict[str, float]) -> dict[str, Any]:
    """Microseconds of a call, forward and backward, their share of the machine's limits, and their parts."""
    copies = copies_beyond_cache(batch.bytes(here.dtype.itemsize), here.device)
    with side_stream(here.device):
        sides = [calls(ops, batch, here, seed) for seed in range(copies)]
        timers = [timer(runs, here.device) for runs in zip(*sides, strict=True)]
        row: dict[str, Any] = {"copies": copies, "how": timers[0].how}
        for stage, timed in zip(("forward", "backward"), timers, strict=True):
            took = median(timed.seconds() for _ in range(1 if here.toy else REPEATS))
            flops, moved = work(batch, here.dtype, stage)
            floor = max(flops / most["flops_per_s"], moved / most["bytes_per_s"])
            row |= {f"{stage}_us": took * 1e6, f"{stage}_of_floor": floor / took}
        return row | _split(lambda: [timed.once() for timed in timers], timers[0].calls, here.device)


def calls(ops: ModuleType, batch: Batch, here: Target, number: int) -> tuple[Run, Run]:
    """Forward and backward of one copy of the inputs."""
    q, kv, grad = inputs(batch, here, number)
    keys_values, dropout = kv.unbind(2), batch.shape.dropout
    seed = torch.tensor([number], device=here.device) if dropout else None
    rest = batch.regions, batch.shape.width**-0.5, dropout, seed
    out, lse = ops.region_attention(q, *keys_values, *rest)
    dq, dkv = torch.empty_like(q), torch.empty_like(kv)
    to = dq, *dkv.unbind(2)
    return (
        lambda: ops.region_attention(q, *keys_values, *rest),
        lambda: ops.region_attention_backward(grad, q, *keys_values, out, lse, *rest, to),
    )


def inputs(batch: Batch, here: Target, number: int) -> tuple[Tensor, Tensor, Tensor]:
    """q (T, H, D), kv (B, S, 2, H, D) and the gradient of the output."""
    shape, generator = batch.shape, torch.Generator(here.device).manual_seed(number)
    heads, rows = (shape.heads, shape.width), int(batch.lengths.sum())
    sizes = [(rows, *heads), (shape.images, shape.keys, 2, *heads), (rows, *heads)]
    q, kv, grad = (torch.randn(s, generator=generator, device=here.device).to(here.dtype) for s in sizes)
    return q, kv, grad


def _split(run: Callable[[], Any], calls: int, device: torch.device) -> dict[str, Any]:
    """Microseconds of each part in one forward or backward; a plan belongs to both."""
    found = parts(profiled(run, device).kernels)
    if not found.keys() & PARTS.keys():
        return {"split": "the profiler saw no kernel of ours"}
    return {f"{name}_us": seconds * 1e6 / calls / (2 if name == "plan" else 1) for name, seconds in found.items()}


def parts(kernels: list[Kernel]) -> dict[str, float]:
    """Seconds of each part by the names of its kernels, and of all `other` ones."""
    found: dict[str, float] = {}
    for kernel in kernels:
        part = next((name for name, pattern in PARTS.items() if pattern.search(kernel.name)), "other")
        found[part] = found.get(part, 0.0) + kernel.seconds
    return found


def host(backend: str, here: Target) -> dict[str, Any]:
    """Microseconds that Python and the op layer take for a call, the device never being waited for."""
    shape = next(shape for shape in here.shapes() if shape.name == "mrc")
    batch = make_batch(shape, here.device)
    q, kv, grad = inputs(batch, here, 0)
    os.environ["RELVLM_KERNELS"] = backend
    if here.toy and backend == "cuda":
        return {"why": "the op layer gives an emulated backend no CPU tensors"}
    try:
        return {"shape": shape.name, **_host_times(q, kv, grad, batch, 1 if here.toy else HOST_CALLS)}
    except Exception as error:
        return {"error": brief(error)}
    finally:
        del os.environ["RELVLM_KERNELS"]


def _host_times(q: Tensor, kv: Tensor, grad: Tensor, batch: Batch, calls: int) -> dict[str, float]:
    def forward() -> Tensor:
        k, v = kv.unbind(2)
        return region_attention(q, k, v, batch.regions)

    def both() -> Any:
        return torch.autograd.grad(forward(), (q, kv), grad)

    found = {"forward_host_us": _host_us(forward, calls)}
    q.requires_grad_(), kv.requires_grad_()
    return found | {"forward_and_backward_host_us": _host_us(both, calls)}


def _host_us(run: Run, calls: int) -> float:
    """The queue of launches holds about a thousand: so few calls never wait for room in it."""
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(calls):
        run()
    took = time.perf_counter() - began
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return took / calls * 1e6


if __name__ == "__main__":
    main(Check.from_arguments("kernels"))
