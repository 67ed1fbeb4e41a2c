"""The four ops, each registered once with `torch.library`: forward, shape-only fake, backward.

Forward and backward run on the backend that `backends.chosen` names for the tensors' device and dtype.
"""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor
from torch.library import custom_op

from relvlm_kernels.backends import chosen
from relvlm_kernels.regions import Regions


def region_attention(q: Tensor, k: Tensor, v: Tensor, regions: Regions, scale: float | None = None) -> Tensor:
    """Attention of packed queries to a box of an image, with one copy of K and V per image.

    q: (T, H, D), the queries of all groups one after another. k, v: (B, P + N, H, D), P prefix tokens and
    then N = rows * columns patches, row-major. Returns (T, H, D). `scale` defaults to D ** -0.5; softmax in fp32
    (fp64 for fp64). Raises ValueError where the shapes disagree.
    """
    _check_regions(q, k, v, regions)
    return _region_attention(
        q, k, v, regions.offsets, regions.image, regions.box, regions.prefix, regions.mean, *regions.grid,
        scale if scale is not None else q.shape[-1] ** -0.5,
    )  # fmt: skip


def varlen_attention(
    q: Tensor, k: Tensor, v: Tensor, cu_q: Tensor, cu_k: Tensor, scale: float | None = None
) -> Tensor:
    """Attention within packed sequences. q: (Tq, H, D); k, v: (Tk, H, D); cu_*: (sequences + 1,) int32."""
    return _varlen_attention(q, k, v, cu_q, cu_k, scale if scale is not None else q.shape[-1] ** -0.5)


def box_mean(x: Tensor, box: Tensor, image: Tensor, grid: tuple[int, int]) -> Tensor:
    """Mean of the patch features inside each box, (G, D): the region's [CLS] (X-VLM with Swin).

    x: (B, P + N, D); box: (G, 4) int32 patches, half-open, not empty; image: (G,) int32 rows of x.
    """
    return _box_mean(x, box, image, *grid)


def mrc_pool(h: Tensor, subject_rows: Tensor, object_rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """relu(weight @ [h[subject]; h[object]] + bias), (R, F): the first layer of the MRC head.

    h: (T, D); subject_rows, object_rows: (R,) int64 rows of h; weight: (F, 2 D); bias: (F,).
    """
    return _mrc_pool(h, subject_rows, object_rows, weight, bias)


def _check_regions(q: Tensor, k: Tensor, v: Tensor, regions: Regions) -> None:
    patches = regions.grid[0] * regions.grid[1]
    if q.dim() != 3 or k.dim() != 4 or k.shape != v.shape or q.shape[1:] != k.shape[2:]:
        raise ValueError(
            f"region_attention: q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)}: "
            "expected (T, H, D), (B, S, H, D), (B, S, H, D)"
        )
    if k.shape[1] < patches:
        raise ValueError(f"region_attention: {k.shape[1]} keys are fewer than the grid's {patches} patches")


def _on(x: Tensor) -> ModuleType:
    return chosen(x.device, x.dtype).ops


@custom_op("relvlm::region_attention", mutates_args=())
def _region_attention(
    q: Tensor, k: Tensor, v: Tensor, offsets: Tensor, image: Tensor, box: Tensor, prefix: Tensor,
    mean: Tensor, rows: int, columns: int, scale: float,
) -> Tensor:  # fmt: skip
    regions = Regions(offsets, image, box, prefix, mean, (rows, columns))
    return _on(q).region_attention(q, k, v, regions, scale).contiguous()


@_region_attention.register_fake
def _(q, k, v, offsets, image, box, prefix, mean, rows, columns, scale):
    return torch.empty_like(q, memory_format=torch.contiguous_format)


@custom_op("relvlm::region_attention_backward", mutates_args=())
def _region_attention_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, offsets: Tensor, image: Tensor, box: Tensor,
    prefix: Tensor, mean: Tensor, rows: int, columns: int, scale: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    regions = Regions(offsets, image, box, prefix, mean, (rows, columns))
    dq, dk, dv = _on(q).region_attention_backward(grad, q, k, v, regions, scale)
    return dq.contiguous(), dk.contiguous(), dv.contiguous()


@_region_attention_backward.register_fake
def _(grad, q, k, v, *rest):
    return _empty(q), _empty(k), _empty(v)


def _save_region_attention(ctx, inputs, output):
    *tensors, ctx.rows, ctx.columns, ctx.scale = inputs
    ctx.save_for_backward(*tensors)


def _region_attention_vjp(ctx, grad):
    dq, dk, dv = _region_attention_backward(grad, *ctx.saved_tensors, ctx.rows, ctx.columns, ctx.scale)
    return dq, dk, dv, *[None] * 8


_region_attention.register_autograd(_region_attention_vjp, setup_context=_save_region_attention)


@custom_op("relvlm::varlen_attention", mutates_args=())
def _varlen_attention(q: Tensor, k: Tensor, v: Tensor, cu_q: Tensor, cu_k: Tensor, scale: float) -> Tensor:
    return _on(q).varlen_attention(q, k, v, cu_q, cu_k, scale).contiguous()


@_varlen_attention.register_fake
def _(q, k, v, cu_q, cu_k, scale):
    return _empty(q)


@custom_op("relvlm::varlen_attention_backward", mutates_args=())
def _varlen_attention_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, cu_q: Tensor, cu_k: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    return _on(q).varlen_attention_backward(grad, q, k, v, cu_q, cu_k, scale)


@_varlen_attention_backward.register_fake
def _(grad, q, k, v, *rest):
    return _empty(q), _empty(k), _empty(v)


def _save_varlen_attention(ctx, inputs, output):
    *tensors, ctx.scale = inputs
    ctx.save_for_backward(*tensors)


def _varlen_attention_vjp(ctx, grad):
    return *_varlen_attention_backward(grad, *ctx.saved_tensors, ctx.scale), None, None, None


_varlen_attention.register_autograd(_varlen_attention_vjp, setup_context=_save_varlen_attention)


@custom_op("relvlm::box_mean", mutates_args=())
def _box_mean(x: Tensor, box: Tensor, image: Tensor, rows: int, columns: int) -> Tensor:
    return _on(x).box_mean(x, box, image, (rows, columns))


@_box_mean.register_fake
def _(x, box, image, rows, columns):
    return x.new_empty(box.shape[0], x.shape[2])


@custom_op("relvlm::box_mean_backward", mutates_args=())
def _box_mean_backward(
    grad: Tensor, x: Tensor, box: Tensor, image: Tensor, rows: int, columns: int
) -> Tensor:
    return _on(x).box_mean_backward(grad, x, box, image, (rows, columns))


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
    return _on(h).mrc_pool(h, subject_rows, object_rows, weight, bias)


@_mrc_pool.register_fake
def _(h, subject_rows, object_rows, weight, bias):
    return h.new_empty(subject_rows.shape[0], weight.shape[0])


@custom_op("relvlm::mrc_pool_backward", mutates_args=())
def _mrc_pool_backward(
    grad: Tensor, h: Tensor, subject_rows: Tensor, object_rows: Tensor, weight: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return _on(h).mrc_pool_backward(grad, h, subject_rows, object_rows, weight, bias)


@_mrc_pool_backward.register_fake
def _(grad, h, subject_rows, object_rows, weight, bias):
    return _empty(h), _empty(weight), _empty(bias)


def _save_mrc_pool(ctx, inputs, output):
    ctx.save_for_backward(*inputs)


def _mrc_pool_vjp(ctx, grad):
    dh, dweight, dbias = _mrc_pool_backward(grad, *ctx.saved_tensors)
    return dh, None, None, dweight, dbias


_mrc_pool.register_autograd(_mrc_pool_vjp, setup_context=_save_mrc_pool)


def _empty(x: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)
