"""Small arguments of every op, by name, and how each may be bent so that it fits no more."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

import relvlm_kernels
from relvlm_kernels import Regions

FIELDS = ("offsets", "image", "box", "prefix", "mean", "grid")
REGIONS = {
    "offsets": torch.tensor([0, 2, 2, 5]).int(), "image": torch.tensor([1, 0, 1]).int(),
    "box": torch.tensor([[0, 0, 2, 2], [1, 0, 2, 1], [0, 1, 2, 2]]).int(),
    "prefix": torch.tensor([1, 0, 1]).bool(), "mean": torch.tensor([0, 1, 1]).bool(), "grid": (2, 2),
}  # fmt: skip
CU_Q, CU_K = torch.tensor([0, 2, 5]).int(), torch.tensor([0, 4, 6]).int()
ROWS = torch.tensor([0, 3, 1])


def _wave(*shape: int) -> Tensor:
    return torch.linspace(-1, 1, torch.Size(shape).numel()).sin().view(shape)


ARGUMENTS: dict[str, dict[str, Any]] = {
    "region_attention": {"q": _wave(5, 2, 16), "k": _wave(2, 5, 2, 16), "v": _wave(2, 5, 2, 16), **REGIONS},
    "region_cross_attention": {
        "q": _wave(5, 2, 16), "x": _wave(2, 5, 8), "weight": _wave(64, 8), "bias": _wave(64), **REGIONS,
    },
    "varlen_attention": {
        "q": _wave(5, 2, 16), "k": _wave(6, 2, 16), "v": _wave(6, 2, 16), "cu_q": CU_Q, "cu_k": CU_K,
    },
    "varlen_attention_kvpacked": {"q": _wave(5, 2, 16), "kv": _wave(6, 2, 2, 16), "cu_q": CU_Q, "cu_k": CU_K},
    "varlen_attention_qkvpacked": {"qkv": _wave(5, 3, 2, 16), "cu": CU_Q},
    "window_attention": {"qkv": _wave(3, 5, 3, 2, 16), "bias": _wave(2, 5, 5)},
    "box_mean": {"x": _wave(2, 5, 16), "box": REGIONS["box"], "image": REGIONS["image"], "grid": (2, 2)},
    "mrc_pool": {
        "h": _wave(4, 16), "subject_rows": ROWS, "object_rows": ROWS.flip(0), "weight": _wave(8, 32), "bias": _wave(8),
    },
    "add_norm": {
        "residual": _wave(5, 16), "x": _wave(5, 16).cos(), "weight": _wave(16), "shift": _wave(16).cos(),
    },
    "gelu_linear": {"x": _wave(5, 16), "bias": _wave(16), "weight": _wave(8, 16), "out_bias": _wave(8)},
}  # fmt: skip
# Axes whose size is free: rows, of which some may be in no group; images; heads and widths that nothing else has.
FREE = {
    "region_attention": {"q": [0]}, "region_cross_attention": {"q": [0], "x": [0]}, "varlen_attention": {"q": [0]},
    "varlen_attention_kvpacked": {"q": [0], "kv": [0]}, "varlen_attention_qkvpacked": {"qkv": [0, 2, 3], "cu": [0]},
    "window_attention": {"qkv": [0, 4]}, "box_mean": {"x": [0, 2]}, "mrc_pool": {"h": [0]}, "add_norm": {},
    "gelu_linear": {"x": [0]},
}  # fmt: skip
MAY_GROW = ("region_cross_attention", "x", 1), ("box_mean", "x", 1)  # an image may have more prefix tokens
MAY_BE_NARROW = "add_norm", "x"  # a product under autocast


def call(op: str, arguments: dict[str, Any]) -> Tensor:
    """The public op on these."""
    if "offsets" in arguments:
        others = {name: x for name, x in arguments.items() if name not in FIELDS}
        return getattr(relvlm_kernels, op)(**others, regions=Regions(*(arguments[name] for name in FIELDS)))
    return getattr(relvlm_kernels, op)(**arguments)


def tensors_of(op: str) -> list[str]:
    return [name for name, x in ARGUMENTS[op].items() if isinstance(x, Tensor)]


def bent(op: str, name: str, how: Callable[[Tensor], Any]) -> dict[str, Any]:
    return ARGUMENTS[op] | {name: how(ARGUMENTS[op][name])}


def other_shapes(op: str, name: str) -> Iterator[tuple[str, Callable[[Tensor], Tensor]]]:
    """That one argument cannot have while the others are as they are."""
    yield "one axis more", lambda x: x[None]
    yield "one axis less", lambda x: x[0]
    for axis in set(range(ARGUMENTS[op][name].dim())).difference(FREE[op].get(name, [])):
        if (op, name, axis) not in MAY_GROW:
            yield f"axis {axis} longer", lambda x, a=axis: torch.cat([x, x.narrow(a, 0, 1)], a)
            yield f"axis {axis} twice", lambda x, a=axis: torch.cat([x, x], a)
        yield f"axis {axis} of 1", lambda x, a=axis: x.narrow(a, 0, 1)
        yield f"axis {axis} of 0", lambda x, a=axis: x.narrow(a, 0, 0)


def empty_heads(op: str) -> Iterator[dict[str, Any]]:
    """All arguments with heads, or features, of no width."""
    for axis in (-1, -2):
        heads = {n: x for n, x in ARGUMENTS[op].items() if n in ("q", "k", "v", "kv", "qkv")}
        if heads:
            yield ARGUMENTS[op] | {name: x.narrow(axis, 0, 0) for name, x in heads.items()}


def other_dtypes(op: str, name: str) -> list[torch.dtype]:
    """That one argument cannot have while the others are as they are."""
    dtype = ARGUMENTS[op][name].dtype
    floats = [n for n in tensors_of(op) if ARGUMENTS[op][n].is_floating_point()]
    if dtype.is_floating_point:
        others = [torch.float64, *([] if (op, name) == MAY_BE_NARROW else [torch.float16])]
        return [torch.int64, torch.complex64, *(others if len(floats) > 1 else [])]
    if dtype == torch.bool:
        return [torch.uint8, torch.int32, torch.float32]
    return [torch.float32, torch.uint8, torch.int16, torch.bool]
