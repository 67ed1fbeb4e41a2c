"""The four ops, each registered once with `torch.library`: forward, shape-only fake, backward.

Forward and backward run on the backend that `backends.chosen` names for the tensors' device and dtype.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from relvlm_kernels import checks, signatures
from relvlm_kernels.derivatives import check_differentiation, no_second_derivative
from relvlm_kernels.dispatch import (
    attend_regions,
    attend_sequences,
    backend_of,
    checked,
    contiguous,
    default_scale,
    dropout_seed,
    empty,
    empty_lse,
    index_of,
    inputs,
    run,
)
from relvlm_kernels.regions import Regions
from relvlm_kernels.registration import nothing, register


def region_attention(
    q: Tensor, k: Tensor, v: Tensor, regions: Regions, scale: float | None = None, dropout: float = 0.0,
    seed: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Attention of packed queries to a box of an image, with one copy of K and V per image.

    q: (T, H, D), the queries of all groups one after another. k, v: (B, P + N, H, D), P prefix tokens and
    then N = rows * columns patches, row-major. Returns (T, H, D). `scale` defaults to D ** -0.5; softmax in fp32
    (fp64 for fp64). `dropout` in [0, 1) drops attention probabilities; which ones depends on `seed`, an int64
    tensor (1,) on the device of q, drawn here if None (so that checkpointing draws it again), and on their places
    alone. Under autocast q, k and v are cast to its dtype. Raises TypeError and ValueError as in `checks`, as do
    all ops, and NotImplementedError in forward-mode differentiation and in torch.func's, but for vmap.
    """
    q, k, v = inputs("region_attention", q=q, k=k, v=v)
    index, seed = index_of("region_attention", regions), dropout_seed(seed, dropout, q)
    return _region_attention(q, k, v, *index, default_scale(scale, q), dropout, seed)[0]


def varlen_attention(
    q: Tensor, k: Tensor, v: Tensor, cu_q: Tensor, cu_k: Tensor, scale: float | None = None, dropout: float = 0.0,
    seed: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Attention within packed sequences; `dropout`, `seed` and autocast as in `region_attention`.

    q: (Tq, H, D); k, v: (Tk, H, D); cu_*: (sequences + 1,) int32. A sequence without keys gives zeros.
    """
    q, k, v, cu_q, cu_k = inputs("varlen_attention", q=q, k=k, v=v, cu_q=cu_q, cu_k=cu_k)
    return _varlen_attention(q, k, v, cu_q, cu_k, default_scale(scale, q), dropout, dropout_seed(seed, dropout, q))[0]


def box_mean(x: Tensor, box: Tensor, image: Tensor, grid: tuple[int, int]) -> Tensor:
    """Mean of the patch features inside each box, (G, D): the region's [CLS] (X-VLM with Swin).

    x: (B, P + N, D); box: (G, 4) int32 patches, half-open, not empty; image: (G,) int32 rows of x.
    """
    checks.check_tensors("box_mean", x=x, box=box, image=image)
    check_differentiation("box_mean", (x,))
    return _box_mean(x, box, image, *checks.check_grid("box_mean", grid))


def mrc_pool(h: Tensor, subject_rows: Tensor, object_rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """relu(weight @ [h[subject]; h[object]] + bias), (R, F): the first layer of the MRC head.

    h: (T, D); subject_rows, object_rows: (R,) int64 rows of h; weight: (F, 2 D); bias: (F,).
    """
    rows = {"subject_rows": subject_rows, "object_rows": object_rows}
    return _mrc_pool(*inputs("mrc_pool", h=h, **rows, weight=weight, bias=bias))


def _region_attention_kernel(
    q: Tensor, k: Tensor, v: Tensor, offsets: Tensor, image: Tensor, box: Tensor, prefix: Tensor, mean: Tensor,
    rows: int, columns: int, scale: float, dropout: float, seed: Tensor | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    tensors = q, k, v, offsets, image, box, prefix, mean
    checks.once(signatures.check_region_attention, "region_attention", tensors, rows, columns)
    return attend_regions(q, k, v, Regions(*tensors[3:], (rows, columns)), scale, dropout, seed)


def _region_attention_fake(q: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    signatures.check_region_attention("region_attention", q, *rest[:-3])
    return empty(q), empty_lse(q)


def _region_attention_backward_kernel(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, offsets: Tensor, image: Tensor,
    box: Tensor, prefix: Tensor, mean: Tensor, rows: int, columns: int, scale: float, dropout: float,
    seed: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    index = offsets, image, box, prefix, mean
    tensors = grad, q, k, v, out, lse, *index
    checks.once(signatures.check_region_attention_backward, "region_attention_backward", tensors, rows, columns)
    args = *tensors[:6], Regions(*index, (rows, columns)), scale, dropout, seed
    return contiguous(run("region_attention_backward", q, *args))


def _attention_backward_fake(grad: Tensor, q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    return empty(q), empty(k), empty(v)


def _save_region_attention(ctx: Any, inputs: Any, output: Any) -> None:
    q, k, v, *index, ctx.rows, ctx.columns, ctx.scale, ctx.dropout, seed = inputs
    ctx.save_for_backward(q, k, v, *output, *index, seed)
    ctx.mark_non_differentiable(output[1])


def _region_attention_vjp(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    *tensors, seed = ctx.saved_tensors
    args = *tensors, ctx.rows, ctx.columns, ctx.scale, ctx.dropout, seed
    return *_region_attention_backward(grad, *args), *[None] * 10


_INDEX = "Tensor offsets, Tensor image, Tensor box, Tensor prefix, Tensor mean, SymInt rows, SymInt columns"
_OPTIONS = "float scale, float dropout, Tensor? seed"
_QKV = "Tensor q, Tensor k, Tensor v"
_region_attention = register(
    f"region_attention({_QKV}, {_INDEX}, {_OPTIONS}) -> (Tensor, Tensor)",
    _region_attention_kernel, _region_attention_fake, _save_region_attention, _region_attention_vjp,
)  # fmt: skip
_region_attention_backward = register(
    f"region_attention_backward(Tensor grad, {_QKV}, Tensor out, Tensor lse, {_INDEX}, {_OPTIONS}) "
    "-> (Tensor, Tensor, Tensor)",
    _region_attention_backward_kernel, _attention_backward_fake, nothing, no_second_derivative("region_attention"),
)  # fmt: skip


def _varlen_attention_kernel(
    q: Tensor, k: Tensor, v: Tensor, cu_q: Tensor, cu_k: Tensor, scale: float, dropout: float, seed: Tensor | None
) -> tuple[Tensor, Tensor]:  # fmt: skip
    checks.once(signatures.check_varlen_attention, "varlen_attention", (q, k, v, cu_q, cu_k))
    return attend_sequences(q, k, v, cu_q, cu_k, scale, dropout, seed)


def _varlen_attention_fake(q: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    signatures.check_varlen_attention("varlen_attention", q, *rest[:-3])
    return empty(q), empty_lse(q)


def _varlen_attention_backward_kernel(*args: Any) -> tuple[Tensor, Tensor, Tensor]:
    checks.once(signatures.check_varlen_attention_backward, "varlen_attention_backward", args[:8])
    return contiguous(run("varlen_attention_backward", args[1], *args))


def _save_varlen_attention(ctx: Any, inputs: Any, output: Any) -> None:
    q, k, v, cu_q, cu_k, ctx.scale, ctx.dropout, seed = inputs
    ctx.save_for_backward(q, k, v, *output, cu_q, cu_k, seed)
    ctx.mark_non_differentiable(output[1])


def _varlen_attention_vjp(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    *tensors, seed = ctx.saved_tensors
    return *_varlen_attention_backward(grad, *tensors, ctx.scale, ctx.dropout, seed), *[None] * 5


_varlen_attention = register(
    f"varlen_attention({_QKV}, Tensor cu_q, Tensor cu_k, {_OPTIONS}) -> (Tensor, Tensor)",
    _varlen_attention_kernel, _varlen_attention_fake, _save_varlen_attention, _varlen_attention_vjp,
)  # fmt: skip
_varlen_attention_backward = register(
    f"varlen_attention_backward(Tensor grad, {_QKV}, Tensor out, Tensor lse, Tensor cu_q, Tensor cu_k, {_OPTIONS}) "
    "-> (Tensor, Tensor, Tensor)",
    _varlen_attention_backward_kernel, _attention_backward_fake, nothing, no_second_derivative("varlen_attention"),
)  # fmt: skip


def _box_mean_kernel(x: Tensor, box: Tensor, image: Tensor, rows: int, columns: int) -> Tensor:
    checks.once(signatures.check_box_mean, "box_mean", (x, box, image), rows, columns)
    backend = backend_of("box_mean", x)
    if checked(backend, x, box, image):
        checks.check_boxes("box_mean", box, image, (rows, columns), x.shape[0])
    return backend.ops.box_mean(x, box, image, (rows, columns))


def _box_mean_fake(x: Tensor, box: Tensor, image: Tensor, rows: int, columns: int) -> Tensor:
    signatures.check_box_mean("box_mean", x, box, image, rows, columns)
    return x.new_empty(box.shape[0], x.shape[2])


def _box_mean_backward_kernel(grad: Tensor, x: Tensor, box: Tensor, image: Tensor, rows: int, columns: int) -> Tensor:
    checks.once(signatures.check_box_mean_backward, "box_mean_backward", (grad, x, box, image), rows, columns)
    return run("box_mean_backward", x, grad, x, box, image, (rows, columns))


def _box_mean_backward_fake(grad: Tensor, x: Tensor, *rest: Any) -> Tensor:
    return empty(x)


def _save_box_mean(ctx: Any, inputs: Any, output: Any) -> None:
    *tensors, ctx.rows, ctx.columns = inputs
    ctx.save_for_backward(*tensors)


def _box_mean_vjp(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return _box_mean_backward(grad, *ctx.saved_tensors, ctx.rows, ctx.columns), None, None, None, None


_BOXES = "Tensor x, Tensor box, Tensor image, SymInt rows, SymInt columns"
_box_mean = register(f"box_mean({_BOXES}) -> Tensor", _box_mean_kernel, _box_mean_fake, _save_box_mean, _box_mean_vjp)
_box_mean_backward = register(
    f"box_mean_backward(Tensor grad, {_BOXES}) -> Tensor",
    _box_mean_backward_kernel, _box_mean_backward_fake, nothing, no_second_derivative("box_mean"),
)  # fmt: skip


def _mrc_pool_kernel(h: Tensor, subject_rows: Tensor, object_rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    checks.once(signatures.check_mrc_pool, "mrc_pool", (h, subject_rows, object_rows, weight, bias))
    if checks.wanted(h.device):
        checks.check_triplets("mrc_pool", subject_rows, object_rows, h.shape[0])
    return run("mrc_pool", h, h, subject_rows.long(), object_rows.long(), weight, bias)


def _mrc_pool_fake(h: Tensor, subject_rows: Tensor, object_rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    signatures.check_mrc_pool("mrc_pool", h, subject_rows, object_rows, weight, bias)
    return h.new_empty(subject_rows.shape[0], weight.shape[0])


def _mrc_pool_backward_kernel(
    grad: Tensor, h: Tensor, subject_rows: Tensor, object_rows: Tensor, weight: Tensor, bias: Tensor, out: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    tensors = grad, h, subject_rows, object_rows, weight, bias, out
    checks.once(signatures.check_mrc_pool_backward, "mrc_pool_backward", tensors)
    args = grad, h, subject_rows.long(), object_rows.long(), weight, bias, out
    return contiguous(run("mrc_pool_backward", h, *args))


def _mrc_pool_backward_fake(
    grad: Tensor, h: Tensor, subject_rows: Tensor, object_rows: Tensor, weight: Tensor, bias: Tensor, out: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return empty(h), empty(weight), empty(bias)


def _save_mrc_pool(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(*inputs, output)


def _mrc_pool_vjp(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    dh, dweight, dbias = _mrc_pool_backward(grad, *ctx.saved_tensors)
    return dh, None, None, dweight, dbias


_PAIRS = "Tensor h, Tensor subject_rows, Tensor object_rows, Tensor weight, Tensor bias"
_mrc_pool = register(f"mrc_pool({_PAIRS}) -> Tensor", _mrc_pool_kernel, _mrc_pool_fake, _save_mrc_pool, _mrc_pool_vjp)
_mrc_pool_backward = register(
    f"mrc_pool_backward(Tensor grad, {_PAIRS}, Tensor out) -> (Tensor, Tensor, Tensor)",
    _mrc_pool_backward_kernel, _mrc_pool_backward_fake, nothing, no_second_derivative("mrc_pool"),
)  # fmt: skip
