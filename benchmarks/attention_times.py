"""Attention alone, forward and backward, by every way at one shape."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from agreement import disagreement, drawn, exact_outputs
from mrc_ways import Masked, Way
from support.shapes import Batch
from timing import Run, Times, brief, copies_beyond_cache, interleaved, speedup

Limits = dict[str, float]  # flops_per_s, bytes_per_s of the machine


def made_ways(batch: Batch, kinds: Sequence[type[Way]]) -> tuple[list[Way], dict[str, str]]:
    """Those that can attend like this, and of the others why not."""
    ways, refused = [], {}
    for kind in kinds:
        reason = kind.refuses(batch.shape)
        try:
            ways += [] if reason else [kind(batch)]
        except Exception as error:  # of a peer: a row of the table
            reason = brief(error)
        if reason:
            refused[kind.name] = reason
    return ways, refused


def checked(ways: list[Way], dtype: torch.dtype) -> dict[str, dict[str, Any]]:
    """Of the ways that fail, or whose output or gradients are off, what is wrong. Not with dropout, which differs."""
    if ways[0].batch.shape.dropout:
        return {}
    exact, wrong = exact_outputs(Masked(ways[0].batch)), {}
    for way in ways:
        try:
            off = disagreement(way, dtype, exact)
        except Exception as error:  # of a peer: a row of the table
            wrong[way.name] = {"error": brief(error)}
            continue
        wrong |= {way.name: {"off": off}} if off else {}
    return wrong


def compare(
    stage: str, ways: list[Way], device: torch.device, dtype: torch.dtype, repeats: int, limits: Limits
) -> dict[str, dict[str, Any]]:
    """Of each way: time, its ratio to ours, and the share of the machine's rates at which the work was done."""
    batch, prepare = ways[0].batch, {"forward": forward, "backward": backward}[stage]
    flops, moved = work(batch, dtype, stage)
    copies = copies_beyond_cache(batch.bytes(dtype.itemsize), device)
    sides = {way.name: prepare(way, dtype) for way in ways if way.backward or stage == "forward"}
    times = interleaved(sides, device, repeats, copies)
    return {name: _cell(found, times.get("ours"), flops, moved, limits) for name, found in times.items()}


def work(batch: Batch, dtype: torch.dtype, stage: str) -> tuple[float, float]:
    """FLOPs that must be done and bytes that must move."""
    size = batch.bytes(dtype.itemsize)
    return (batch.flops(), size) if stage == "forward" else (2.5 * batch.flops(), 2 * size)


def _cell(found: Times, ours: Times | None, flops: float, moved: float, limits: Limits) -> dict[str, Any]:
    if found.error:
        return {"error": found.error}
    took, gemm, copy = found.median, flops / limits["flops_per_s"], moved / limits["bytes_per_s"]
    ratio = {"ratio": speedup(found, ours)} if ours and not ours.error else {}
    return ratio | {
        "ms": took * 1e3, "how": found.how, "flops": flops, "bytes": moved, "gemm_fraction": gemm / took,
        "copy_fraction": copy / took, "roofline_fraction": max(gemm, copy) / took,
    }  # fmt: skip


def forward(way: Way, dtype: torch.dtype) -> Callable[[int], Run]:
    """Attention alone; the copies of keys and values are made before."""

    @cache
    def inputs(copy: int) -> tuple[torch.Tensor, ...]:
        q, k, v, _ = (x.detach() for x in drawn(way, dtype, 2 + copy))
        return q, way.tokens(k), way.tokens(v)

    def prepare(copy: int) -> Run:
        q, k, v = inputs(copy)
        return lambda: way.attend(q, k, v)

    return prepare


def backward(way: Way, dtype: torch.dtype) -> Callable[[int], Run]:
    @cache
    def inputs(copy: int) -> tuple[torch.Tensor, ...]:
        q, k, v, grad = drawn(way, dtype, 2 + copy)
        return q, *(way.tokens(x.detach()).requires_grad_() for x in (k, v)), grad

    def prepare(copy: int) -> Run:
        q, k, v, grad = inputs(copy)
        out = way.attend(q, k, v)
        again = way.device.type == "cuda"  # its graph runs again and again
        return lambda: torch.autograd.grad(out, (q, k, v), grad, retain_graph=again)

    return prepare
