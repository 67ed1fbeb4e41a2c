"""What the registered ops share: the backend that runs, dtypes under autocast, defaults, and checks of shapes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from relvlm_kernels.backends import chosen
from relvlm_kernels.regions import Regions


def run(op: str, x: Tensor, *args: Any) -> Any:
    """Calls `op` of the backend for the device and dtype of `x`; autocast does not reach into it."""
    with torch.autocast(x.device.type, enabled=False):
        return getattr(chosen(x.device, x.dtype).ops, op)(*args)


def autocast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """As PyTorch's own attention and linear layers: in autocast's dtype where it is on, float64 left alone."""
    device = tensors[0].device.type
    if not torch.is_autocast_enabled(device):
        return tensors
    dtype = torch.get_autocast_dtype(device)
    return tuple(x if x.dtype == torch.float64 else x.to(dtype) for x in tensors)


def default_scale(scale: float | None, q: Tensor) -> float:
    return scale if scale is not None else q.shape[-1] ** -0.5


def dropout_seed(seed: Tensor | None, dropout: float, x: Tensor) -> Tensor | None:
    """The seed to use: none without dropout, one drawn on the device of `x` if none is given.

    Raises ValueError where dropout is not in [0, 1) or the seed no int64 tensor (1,) on that device.
    """
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout {dropout}: expected a number in [0, 1)")
    if not dropout:
        return None
    if seed is None:
        return torch.randint(2**63 - 1, (1,), device=x.device)
    if seed.shape != (1,) or seed.dtype != torch.int64 or seed.device != x.device:
        raise ValueError(
            f"seed {tuple(seed.shape)} {seed.dtype} on {seed.device}: expected (1,) int64 on {x.device}"
        )
    return seed


def check_regions(q: Tensor, k: Tensor, v: Tensor, regions: Regions) -> None:
    """Raises ValueError where these are not the inputs of `region_attention`."""
    if q.dim() != 3 or k.dim() != 4 or k.shape != v.shape or q.shape[1:] != k.shape[2:]:
        raise ValueError(
            f"region_attention: q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)}: "
            "expected (T, H, D), (B, S, H, D), (B, S, H, D)"
        )
    check_grid(k.shape[1], regions)


def check_grid(keys: int, regions: Regions) -> None:
    """Raises ValueError where an image of `keys` tokens has no room for the grid."""
    patches = regions.grid[0] * regions.grid[1]
    if keys < patches:
        raise ValueError(f"region_attention: {keys} keys are fewer than the grid's {patches} patches")


def empty(x: Tensor) -> Tensor:
    """Contiguous, of the shape and dtype of `x`."""
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def empty_lse(q: Tensor) -> Tensor:
    """(T, H) for the log-sum-exps of q (T, H, D)."""
    return q.new_empty(q.shape[:2], dtype=torch.float64 if q.dtype == torch.float64 else torch.float32)


def contiguous(tensors: tuple[Tensor, ...]) -> Any:
    """As the fakes promise."""
    return tuple(x.contiguous() for x in tensors)
