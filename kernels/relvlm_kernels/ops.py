"""The four ops, each registered once with `torch.library`: forward, shape-only fake, backward.

Forward and backward run on the backend that `backends.chosen` names for the tensors' device and dtype.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.library import custom_op

from relvlm_kernels import checks
from relvlm_kernels.dispatch import (
    attend_regions,
    attend_sequences,
    autocast,
    checked,
    contiguous,
    default_scale,
    dropout_seed,
    empty,
    empty_lse,
    run,
)
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
    checks.check_shapes(q, k, v, regions)
    q, k, v = autocast(q, k, v)
    return _region_attention(
        q, k, v, regions.offsets, regions.image, regions.box, regions.prefix, regions.mean, *regions.grid,
        default_scale(scale, q), dropout, dropout_seed(seed, dropout, q),
    )[0]  # fmt: skip


def varlen_attention(
    q: Tensor, k: Tensor, v: Tensor, cu_q: Tensor, cu_k: Tensor, scale: float | None = None, dropout: float = 0.0,
    seed: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Attention within packed sequences; `dropout`, `seed` and autocast as in `region_attention`.

    q: (Tq, H, D); k, v: (Tk, H, D); cu_*: (sequences + 1,) int32. A sequence without keys gives zeros.
    """
    q, k, v = autocast(q, k, v)
    return _varlen_attention(q, k, v, cu_q, cu_k, default_scale(scale, q), dropout, dropout_seed(seed, dropout, q))[0]


def box_mean(x: Tensor, box: Tensor, image: Tensor, grid: tuple[int, int]) -> Tensor:
    """Mean of the patch features inside each box, (G, D): the region's [CLS] (X-VLM with Swin).

    x: (B, P + N, D); box: (G, 4) int32 patches, half-open, not empty; image: (G,) int32 rows of x.
    """
    return _box_mean(x, box, image, *grid)


def mrc_pool(h: Tensor, subject_rows: Tensor, object_rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """relu(weight @ [h[subject]; h[object]] + bias), (R, F): the first layer of the MRC head.

    h: (T, D); subject_rows, object_rows: (R,) int64 rows of h; weight: (F, 2 D); bias: (F,).
    """
    h, weight, bias = autocast(h, weight, bias)
    return _mrc_pool(h, subject_rows, object_rows, weight, bias)


@custom_op("relvlm::region_attention", mutates_args=())
def _region_attention(
    q: Tensor, k: Tensor, v: Tensor, offsets: Tensor, image: Tensor, box: Tensor, prefix: Tensor,
    mean: Tensor, rows: int, columns: int, scale: float, dropout: float, seed: Tensor | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    regions = Regions(offsets, image, box, prefix, mean, (rows, columns))
    return attend_regions(q, k, v, regions, scale, dropout, seed)


@_region_attention.register_fake
def _(q: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return empty(q), empty_lse(q)


@custom_op("relvlm::region_attention_backward", mutates_args=())
def _region_attention_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, offsets: Tensor, image: Tensor,
    box: Tensor, prefix: Tensor, mean: Tensor, seed: Tensor | None, rows: int, columns: int, scale: float,
    dropout: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    regions = Regions(offsets, image, box, prefix, mean, (rows, columns))
    args = grad, q, k, v, out, lse, regions, scale, dropout, seed
    return contiguous(run("region_attention_backward", q, *args))


@_region_attention_backward.register_fake
def _(grad: Tensor, q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    return empty(q), empty(k), empty(v)


def _save_region_attention(ctx: Any, inputs: Any, output: Any) -> None:
    q, k, v, *index, ctx.rows, ctx.columns, ctx.scale, ctx.dropout, seed = inputs
    ctx.save_for_backward(q, k, v, *output, *index, seed)
    ctx.mark_non_differentiable(output[1])


def _region_attention_vjp(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    args = *ctx.saved_tensors, ctx.rows, ctx.columns, ctx.scale, ctx.dropout
    return *_region_attention_backward(grad, *args), *[None] * 10


_region_attention.register_autograd(_region_attention_vjp, setup_context=_save_region_attention)


@custom_op("relvlm::varlen_attention", mutates_args=())
def _varlen_attention(
    q: Tensor, k: Tensor, v: Tensor, cu_q: Tensor, cu_k: Tensor, scale: float, dropout: float,
    seed: Tensor | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    return attend_sequences(q, k, v, cu_q, cu_k, scale, dropout, seed)


@_varlen_attention.register_fake
def _(q: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return empty(q), empty_lse(q)


@custom_op("relvlm::varlen_attention_backward", mutates_args=())
def _varlen_attention_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, cu_q: Tensor, cu_k: Tensor,
    seed: Tensor | None, scale: float, dropout: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    args = grad, q, k, v, out, lse, cu_q, cu_k, scale, dropout, seed
    return contiguous(run("varlen_attention_backward", q, *args))


@_varlen_attention_backward.register_fake
def _(grad: Tensor, q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    return empty(q), empty(k), empty(v)


def _save_varlen_attention(ctx: Any, inputs: Any, output: Any) -> None:
    q, k, v, cu_q, cu_k, ctx.scale, ctx.dropout, seed = inputs
    ctx.save_for_backward(q, k, v, *output, cu_q, cu_k, seed)
    ctx.mark_non_differentiable(output[1])


def _varlen_attention_vjp(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    return *_varlen_attention_backward(grad, *ctx.saved_tensors, ctx.scale, ctx.dropout), *[None] * 5


_varlen_attention.register_autograd(_varlen_attention_vjp, setup_context=_save_varlen_attention)


@custom_op("relvlm::box_mean", mutates_args=())
def _box_mean(x: Tensor, box: Tensor, image: Tensor, rows: int, columns: int) -> Tensor:
    if checked("box_mean", x):
        checks.check_boxes("box_mean", box, image, (rows, columns), len(x))
    return run("box_mean", x, x, box, image, (rows, columns))


@_box_mean.register_fake
def _(x: Tensor, box: Tensor, image: Tensor, rows: int, columns: int) -> Tensor:
    return x.new_empty(box.shape[0], x.shape[2])


@custom_op("relvlm::box_mean_backward", mutates_args=())
def _box_mean_backward(grad: Tensor, x: Tensor, box: Tensor, image: Tensor, rows: int, columns: int) -> Tensor:
    return run("box_mean_backward", x, grad, x, box, image, (rows, columns))


@_box_mean_backward.register_fake
def _(grad: Tensor, x: Tensor, box: Tensor, image: Tensor, rows: int, columns: int) -> Tensor:
    return empty(x)


def _save_box_mean(ctx: Any, inputs: Any, output: Any) -> None:
    *tensors, ctx.rows, ctx.columns = inputs
    ctx.save_for_backward(*tensors)


def _box_mean_vjp(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return _box_mean_backward(grad, *ctx.saved_tensors, ctx.rows, ctx.columns), None, None, None, None


_box_mean.register_autograd(_box_mean_vjp, setup_context=_save_box_mean)


@custom_op("relvlm::mrc_pool", mutates_args=())
def _mrc_pool(h: Tensor, subject_rows: Tensor, object_rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    if checks.wanted(h.device):
        checks.check_triplets("mrc_pool", subject_rows, object_rows, len(h))
    return run("mrc_pool", h, h, subject_rows, object_rows, weight, bias)


@_mrc_pool.register_fake
def _(h: Tensor, subject_rows: Tensor, object_rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
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
    return contiguous(run("mrc_pool_backward", h, *args))


@_mrc_pool_backward.register_fake
def _(
    grad: Tensor,
    h: Tensor,
    subject_rows: Tensor,
    object_rows: Tensor,
    weight: Tensor,
    bias: Tensor,
    out: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    return empty(h), empty(weight), empty(bias)


def _save_mrc_pool(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(*inputs, output)


def _mrc_pool_vjp(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    dh, dweight, dbias = _mrc_pool_backward(grad, *ctx.saved_tensors)
    return dh, None, None, dweight, dbias


_mrc_pool.register_autograd(_mrc_pool_vjp, setup_context=_save_mrc_pool)
