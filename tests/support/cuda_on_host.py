"""The compiled CUDA library in the reference's place: reads structures as C does, on tensors of the CPU."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest
import torch
from torch import Tensor

from relvlm_kernels import Regions, reference
from relvlm_kernels.cuda import library

DTYPES = (torch.float32, torch.bfloat16, torch.float16)  # `Element` of csrc/cuda/call.h


def stand_in(monkeypatch: pytest.MonkeyPatch) -> list[library.Launch]:
    """Kernels run on the CPU from now on. What was started."""
    started: list[library.Launch] = []

    def run(call: library.Launch, function: str) -> None:
        started.append(call)
        KERNELS[function](call.struct)

    monkeypatch.setattr(library.Launch, "run", run)
    return started


def at(pointer: int, dtype: torch.dtype, *shape: int, strides: tuple[int, ...] | None = None) -> Tensor:
    """The tensor that C finds at an address."""
    strides = strides or torch.empty(shape, device="meta").stride()
    count = 1 + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    if 0 in shape:
        return torch.empty(shape, dtype=dtype)
    block = (ctypes.c_byte * (count * dtype.itemsize)).from_address(pointer)
    return torch.frombuffer(block, dtype=dtype).as_strided(shape, strides)


def attention(s: Any) -> None:
    dtype, regions = DTYPES[s.element], s.index.image is not None
    heads = (s.heads, s.width)

    def rows(name: str, count: int) -> Tensor:
        strides = getattr(s, f"{name}_row"), getattr(s, f"{name}_head"), 1
        return at(getattr(s, name), dtype, count, *heads, strides=strides)

    def keys(name: str) -> Tensor:
        return rows(name, s.keys).unflatten(0, (s.items, -1)) if regions else rows(name, s.keys)

    assert s.threshold == int(s.dropout * 2**32) and s.kept == pytest.approx(1 / (1 - s.dropout))
    seed = at(s.seed, torch.int64, 1) if s.seed else None
    index = (_regions(s.index, s.items),) if regions else _sequences(s.index, s.items)
    rest = *index, s.scale, s.dropout, seed
    op = "region_attention" if regions else "varlen_attention"
    q, k, v = rows("q", s.queries), keys("k"), keys("v")
    lse = at(s.lse, torch.float32, s.queries, s.heads)
    if not s.backward:
        _write(getattr(reference, op)(q, k, v, *rest), at(s.out, dtype, s.queries, *heads), lse)
        return
    saved = at(s.saved, dtype, s.queries, *heads)
    to = rows("dq", s.queries), keys("dk"), keys("dv")
    found = getattr(reference, f"{op}_backward")(
        rows("grad", s.queries), q, k, v, saved, lse, *rest, to if s.partial else None
    )
    _write(found, *to)


def _write(found: tuple[Tensor, ...], *to: Tensor) -> None:
    for a, b in zip(found, to, strict=True):
        b.copy_(a)


def _regions(index: Any, images: int) -> Regions:
    ints = {"offsets": (index.count + 1,), "image": (index.count,), "box": (index.count, 4)}
    tensors = {name: at(getattr(index, name), torch.int32, *shape) for name, shape in ints.items()}
    flags = {name: at(getattr(index, name), torch.bool, index.count) for name in ("prefix", "mean")}
    return Regions(**tensors, **flags, grid=(index.grid_rows, index.grid_columns))


def _sequences(index: Any, count: int) -> tuple[Tensor, Tensor]:
    assert index.count == count
    return at(index.offsets, torch.int32, count + 1), at(index.key_offsets, torch.int32, count + 1)


def box_mean(s: Any) -> None:
    box, image = at(s.box, torch.int32, s.count, 4), at(s.image, torch.int32, s.count)
    grid, dtype, shape = (s.grid_rows, s.grid_columns), DTYPES[s.element], (s.images, s.tokens, s.width)
    if s.backward:
        grad = at(s.source, dtype, s.count, s.width, strides=(s.source_row, 1))
        like = torch.empty(shape, dtype=dtype)
        _write((reference.box_mean_backward(grad, like, box, image, grid),), at(s.to, dtype, *shape))
        return
    x = at(s.source, dtype, *shape, strides=(s.source_image, s.source_row, 1))
    _write((reference.box_mean(x, box, image, grid),), at(s.to, dtype, s.count, s.width))


def pair_linear(s: Any) -> None:
    dtype = DTYPES[s.element]
    rows = (at(x, torch.int64, s.pairs) for x in (s.subject, s.object))
    weight, bias = at(s.weight, dtype, s.features, 2 * s.width), at(s.bias, dtype, s.features)
    out = reference.mrc_pool(at(s.h, dtype, s.rows, s.width), *rows, weight, bias)
    _write((out,), at(s.out, dtype, s.pairs, s.features))


def row_sums(s: Any) -> None:
    starts = at(s.starts, torch.int64, s.rows + 1)
    source = at(s.source, DTYPES[s.element], int(starts[-1]), s.width)
    places, to = at(s.places, torch.int64, len(source)), at(s.to, source.dtype, s.rows, s.width)
    owner = torch.arange(s.rows).repeat_interleave(starts.diff())
    _write((torch.zeros_like(to).index_add_(0, owner, source[places]),), to)


KERNELS = {"attention": attention, "box_mean": box_mean, "pair_linear": pair_linear, "row_sums": row_sums}
