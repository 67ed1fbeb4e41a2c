"""What the registered ops share: the backend that runs, dtypes under autocast, and defaults."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from relvlm_kernels import checks
from relvlm_kernels.backends import Backend, chosen
from relvlm_kernels.derivatives import check_differentiation
from relvlm_kernels.regions import Regions


def run(op: str, x: Tensor, *args: Any) -> Any:
    """Calls `op` of the backend for `x`."""
    return getattr(backend_of(op, x).ops, op)(*args)


def backend_of(op: str, x: Tensor) -> Backend:
    """That for the device and dtype of `x`, and for attention the width of its heads (..., D)."""
    return chosen(x.device, x.dtype, x.shape[-1] if "attention" in op else None)


def checked(backend: Backend, x: Tensor, *indexes: Tensor) -> bool:
    """Whether values of index tensors must be looked at before; the `cpu` backend does it itself, in int32."""
    return checks.wanted(x.device) and (backend.name != "cpu" or {x.dtype for x in indexes} != {torch.int32})


def attend_regions(
    q: Tensor, k: Tensor, v: Tensor, regions: Regions, scale: float, dropout: float, seed: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Output and log-sum-exps of region attention; raises ValueError as in `checks`."""
    backend = backend_of("region_attention", q)
    if checked(backend, q, regions.offsets, regions.image, regions.box):
        checks.check_groups("region_attention", regions, q.shape[0], k.shape[0])
    return contiguous(backend.ops.region_attention(q, k, v, regions, scale, dropout, seed))


def attend_sequences(
    q: Tensor, k: Tensor, v: Tensor, cu_q: Tensor, cu_k: Tensor, scale: float, dropout: float, seed: Tensor | None
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Output and log-sum-exps of varlen attention; raises ValueError as in `checks`."""
    backend = backend_of("varlen_attention", q)
    if checked(backend, q, cu_q, cu_k):
        checks.check_offsets("varlen_attention", cu_q, q.shape[0])
        checks.check_offsets("varlen_attention", cu_k, k.shape[0])
    return contiguous(backend.ops.varlen_attention(q, k, v, cu_q, cu_k, scale, dropout, seed))


def inputs(op: str, **tensors: Tensor) -> tuple[Tensor, ...]:
    """Those of floating point, as PyTorch's own attention and linear layers have them: in autocast's dtype where it is
    on, float64 left alone.

    Raises TypeError where one is no dense tensor, NotImplementedError where they are differentiated in a way that the
    ops do not know.
    """
    checks.check_tensors(op, **tensors)
    check_differentiation(op, tensors.values())
    first, *_ = found = tuple(tensors.values())
    dtype = _autocast_dtype(first.device.type)
    if dtype is None:
        return found
    return tuple([x.to(dtype) if x.dtype in checks.FLOATS and x.dtype != torch.float64 else x for x in found])


def _autocast_dtype(device: str) -> torch.dtype | None:
    """None where it is off."""
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return None


def index_of(op: str, regions: Regions) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, int, int]:
    """The fields of regions as the registered ops take them."""
    if not isinstance(regions, Regions):
        raise TypeError(f"{op}: regions is of type {type(regions).__name__}: expected Regions")
    r = regions
    checks.check_tensors(op, offsets=r.offsets, image=r.image, box=r.box, prefix=r.prefix, mean=r.mean)
    return r.offsets, r.image, r.box, r.prefix, r.mean, *checks.check_grid(op, r.grid)


def default_scale(scale: float | None, q: Tensor) -> float:
    """Raises TypeError where it is a tensor, whose gradient would be lost, ValueError where it is not finite."""
    if scale is None:
        return (q.shape[-1:].numel() or 1) ** -0.5
    if isinstance(scale, Tensor):
        raise TypeError("scale is of type Tensor: expected a number")
    if not -math.inf < scale < math.inf:
        raise ValueError(f"scale {scale}: expected a finite number")
    return scale


def dropout_seed(seed: Tensor | None, dropout: float, x: Tensor) -> Tensor | None:
    """The seed to use: none without dropout, one drawn on the device of `x` if none is given.

    Raises ValueError where dropout is not in [0, 1) or the seed no int64 tensor (1,) on that device.
    """
    if isinstance(dropout, Tensor):
        raise TypeError("dropout is of type Tensor: expected a number in [0, 1)")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout {dropout}: expected a number in [0, 1)")
    if not dropout:
        return None
    if seed is None:
        return torch.randint(2**63 - 1, (1,), device=x.device)
    checks.check_tensors("dropout", seed=seed)
    if seed.shape != (1,) or seed.dtype != torch.int64 or seed.device != x.device:
        raise ValueError(f"seed {tuple(seed.shape)} {seed.dtype} on {seed.device}: expected (1,) int64 on {x.device}")
    return seed


def empty(x: Tensor) -> Tensor:
    """Contiguous, of the shape and dtype of `x`."""
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def empty_lse(q: Tensor) -> Tensor:
    """(..., H) for the log-sum-exps of q (..., H, D)."""
    return q.new_empty(q.shape[:-1], dtype=torch.float64 if q.dtype == torch.float64 else torch.float32)


def contiguous(tensors: tuple[Tensor, ...]) -> Any:
    """As the fakes promise."""
    return tuple([x.contiguous() for x in tensors])
