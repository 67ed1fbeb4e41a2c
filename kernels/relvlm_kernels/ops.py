"""The four ops, each registered once with `torch.library`: forward, shape-only fake, backward.

Forward and backward run on the backend that `backends.chosen` names for the tensors' device and dtype.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.library import custom_op

from relvlm_kernels.backends import chosen
from relvlm_kernels.regions import Regions


def region_attention(
    q: Tensor, k: Tensor, v: Tensor, regions: Regions, scale: float | None = None, dropout: float = 0.0,
    seed: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Attention of packed queries to a box of an image, with one copy of K and V per image.

    q: (T, H, D), the queries of all groups one after another. k, v: (B, P + N, H, D), P prefix tokens and
    then N = rows * columns patches, row-major. Returns (T, H, D). `scale` defaults to D ** -0.5; softmax in fp32
    (fp64 for fp64). `dropout` in [0, 1) drops attention probabilities; which ones depends on `seed`, an int64
    tensor (1,) on the device of q, drawn here if None (so that checkpointing draws it again), and on their places
    alone. Under autocast q, k and v are cast to its dtype. Raises ValueError where the shapes disagree.
    """
    _check_regions(q, k, v, regions)
    q, k, v = _autocast(q, k, v)
    return _region_attention(
        q, k, v, regions.offsets, regions.image, regions.box, regions.prefix, regions.mean, *regions.grid,
        _scale(scale, q), dropout, _seed(seed, dropout, q),
    )[0]  # fmt: skip


def varlen_attention(
    q: Tensor, k: Tensor, v: Tensor, cu_q: Tensor, cu_k: Tensor, scale: float | None = None, dropout: float = 0.0,
    seed: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Attention within packed sequences; `dropout`, `seed` and autocast as in `region_attention`.

    q: (Tq, H, D); k, v: (Tk, H, D); cu_*: (sequences + 1,) int32. A sequence without keys gives zeros.
    """
    q, k, v = _autocast(q, k, v)
    return _varlen_attention(q, k, v, cu_q, cu_k, _scale(scale, q), dropout, _seed(seed, dropout, q))[0]


def box_mean(x: Tensor, box: Tensor, image: Tensor, grid: tuple[int, int]) -> Tensor:
    """Mean of the patch features inside each box, (G, D): the region's [CLS] (X-VLM with Swin).

    x: (B, P + N, D); box: (G, 4) int32 patches, half-open, not empty; image: (G,) int32 rows of x.
    """
    return _box_mean(x, box, image, *grid)


def mrc_pool(h: Tensor, subject_rows: Tensor, object_rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """relu(weight @ [h[subject]; h[object]] + bias), (R, F): the first layer of the MRC head.

    h: (T, D); subject_rows, object_rows: (R,) int64 rows of h; weight: (F, 2 D); bias: (F,).
    """
    h, weight, bias = _autocast(h, weight, bias)
    return _mrc_pool(h, subject_rows, object_rows, weight, bias)


def _check_regions(q: Tensor, k: Tensor, v: Tensor, regions: Regions) -> None:
    if q.dim() != 3 or k.dim() != 4 or k.shape != v.shape or q.shape[1:] != k.shape[2:]:
        raise ValueError(
            f"region_attention: q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)}: "
            "expected (T, H, D), (B, S, H, D), (B, S, H, D)"
        )
    _check_grid(k.shape[1], regions)


def _check_grid(keys: int, regions: Regions) -> None:
    patches = regions.grid[0] * regions.grid[1]
    if keys < patches:
        raise ValueError(f"region_attention: {keys} keys are fewer than the grid's {patches} patches")


def _scale(scale: float | None, q: Tensor) -> float:
    return scale if scale is not None else q.shape[-1] ** -0.5


def _seed(seed: Tensor | None, dropout: float, x: Tensor) -> Tensor | None:
    """The seed to use: none without dropout, one drawn on the device of `x` if none is given."""
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


def _autocast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """As PyTorch's own attention and linear layers: in autocast's dtype where it is on, float64 left alone."""
    device = tensors[0].device.type
    if not torch.is_autocast_enabled(device):
        return tensors
    dtype = torch.get_autocast_dtype(device)
    return tuple(x if x.dtype == torch.float64 else x.to(dtype) for x in tensors)


def _run(op: str, x: Tensor, *args: Any) -> Any:
    """Calls `op` of the backend for the device and dtype of `x`; autocast does not reach into it."""
    with torch.autocast(x.device.type, enabled=False):
        return getattr(chosen(x.device, x.dtype).ops, op)(*args)


@custom_op("relvlm::region_attention", mutates_args=())
def _region_attention(
    q: Tensor, k: Tensor, v: Tensor, offsets: Tensor, image: Tensor, box: Tensor, prefix: Tensor,
    mean: Tensor, rows: int, columns: int, scale: float, dropout: float, seed: Tensor | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    regions = Regions(offsets, image, box, prefix, mean, (rows, columns))
    return _contiguous(_run("region_attention", q, q, k, v, regions, scale, dropout, seed))


@_region_attention.register_fake
def _(q, *rest):
    return _empty(q), _empty_lse(q)


@custom_op("relvlm::region_attention_backward", mutates_args=())
def _region_attention_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, offsets: Tensor, image: Tensor,
    box: Tensor, prefix: Tensor, mean: Tensor, seed: Tensor | None, rows: int, columns: int, scale: float,
    dropout: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    regions = Regions(offsets, image, box, prefix, mean, (rows, columns))
    args = grad, q, k, v, out, lse, regions, scale, dropout, seed
    return _contiguous(_run("region_attention_backward", q, *args))


@_region_attention_backward.register_fake
def _(grad, q, k, v, *rest):
    return _empty(q), _empty(k), _empty(v)


def _save_region_attention(ctx, inputs, output):
    q, k, v, *index, ctx.rows, ctx.columns, ctx.scale, ctx.dropout, seed = inputs
    ctx.save_for_backward(q, k, v, *output, *index, seed)
    ctx.mark_non_differentiable(output[1])


def _region_attention_vjp(ctx, grad, _):
    args = *ctx.saved_tensors, ctx.rows, ctx.columns, ctx.scale, ctx.dropout
    return *_region_attention_backward(grad, *args), *[None] * 10


_region_attention.register_autograd(_region_attention_vjp, setup_context=_save_region_attention)


@custom_op("relvlm::varlen_attention", mutates_args=())
def _varlen_attention(
    q: Tensor, k: Tensor, v: Tensor, cu_q: Tensor, cu_k: Tensor, scale: float, dropout: float,
    seed: Tensor | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    return _contiguous(_run("varlen_attention", q, q, k, v, cu_q, cu_k, scale, dropout, seed))


@_varlen_attention.register_fake
def _(q, *rest):
    return _empty(q), _empty_lse(q)


@custom_op("relvlm::varlen_attention_backward", mutates_args=())
def _varlen_attention_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, cu_q: Tensor, cu_k: Tensor,
    seed: Tensor | None, scale: float, dropout: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    args = grad, q, k, v, out, lse, cu_q, cu_k, scale, dropout, seed
    return _contiguous(_run("varlen_attention_backward", q, *args))


@_varlen_attention_backward.register_fake
def _(grad, q, k, v, *rest):
    return _empty(q), _empty(k), _empty(v)


def _save_varlen_attention(ctx, inputs, output):
    q, k, v, cu_q, cu_k, ctx.scale, ctx.dropout, seed = inputs
    ctx.save_for_backward(q, k, v, *output, cu_q, cu_k, seed)
    ctx.mark_non_differentiable(output[1])


def _varlen_attention_vjp(ctx, grad, _):
    return *_varlen_attention_backward(grad, *ctx.saved_tensors, ctx.scale, ctx.dropout), *[None] * 5


_varlen_attention.register_autograd(_varlen_attention_vjp, setup_context=_save_varlen_attention)


@custom_op("relvlm::box_mean", mutates_args=())
def _box_mean(x: Tensor, box: Tensor, image: Tensor, rows: int, columns: int) -> Tensor:
    return _run("box_mean", x, x, box, image, (rows, columns))


@_box_mean.register_fake
def _(x, box, image, rows, columns):
    return x.new_empty(box.shape[0], x.shape[2])


@custom_op("relvlm::box_mean_backward", mutates_args=())
def _box_mean_backward(
    grad: Tensor, x: Tensor, box: Tensor, image: Tensor, rows: int, columns: int
) -> Tensor:
    return _run("box_mean_backward", x, grad, x, box, image, (rows, columns))


@_box_mean_backward.register_fake
def _(grad, x, box, image, rows, columns):
    return _empty(x)


def _save_box_mean(ctx, inputs, output):
    *tensors, ctx.rows, ctx.columns = inputs
    ctx.save_for_backward(*tensors)


def _box_mean_vjp(ctx, grad):
    return _box_mean_backward(grad, *ctx.saved_tensors, ctx.rows, ctx.columns), None, None, None, None


_box_mean.register_autograd(_box_mean_vjp, setup_context=_save_box_mean)


@custom_op("relvlm::mrc_pool", mutates_args=())
def _mrc_pool(h: Tensor, subject_rows: Tensor, object_rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return _run("mrc_pool", h, h, subject_rows, object_rows, weight, bias)


@_mrc_pool.register_fake
def _(h, subject_rows, object_rows, weight, bias):
    return h.new_empty(subject_rows.shape[0], weight.shape[0])


@custom_op("relvlm::mrc_pool_backward", mutates_args=())
def _mrc_pool_backward(
    grad: Tensor,
    h: Tensor,
    subject_rows: Tensor,
    object_rows: Tensor,
    weight: Tensor,
    bias: Tensor,
    out: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    args = grad, h, subject_rows, object_rows, weight, bias, out
    return _contiguous(_run("mrc_pool_backward", h, *args))


@_mrc_pool_backward.register_fake
def _(grad, h, subject_rows, object_rows, weight, bias, out):
    return _empty(h), _empty(weight), _empty(bias)


def _save_mrc_pool(ctx, inputs, output):
    ctx.save_for_backward(*inputs, output)


def _mrc_pool_vjp(ctx, grad):
    dh, dweight, dbias = _mrc_pool_backward(grad, *ctx.saved_tensors)
    return dh, None, None, dweight, dbias


_mrc_pool.register_autograd(_mrc_pool_vjp, setup_context=_save_mrc_pool)


def _empty(x: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _empty_lse(q: Tensor) -> Tensor:
    return q.new_empty(q.shape[:2], dtype=torch.float64 if q.dtype == torch.float64 else torch.float32)


def _contiguous(tensors: tuple[Tensor, ...]) -> Any:
    """As the fakes promise."""
    return tuple(x.contiguous() for x in tensors)
