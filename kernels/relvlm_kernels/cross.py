"""Cross-attention together with its projection of keys and values: one op, and one that is its backward.

Apart, the gradients of keys and values take as much memory as these, at the same time. Here the backward goes through
the images a few at a time: attention into a small buffer that is used again and again, and from there into the
gradients of the projection and of the image tokens.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from relvlm_kernels import checks, signatures
from relvlm_kernels.derivatives import no_second_derivative
from relvlm_kernels.dispatch import (
    attend_regions,
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

CHUNK_BYTES = {"cpu": 8 << 20}  # of the buffer: about what a cache holds, and still large matrix products
CHUNK_BYTES_ELSEWHERE = 64 << 20  # enough work for a GPU


def region_cross_attention(
    q: Tensor, x: Tensor, weight: Tensor, bias: Tensor, regions: Regions, scale: float | None = None,
    dropout: float = 0.0, seed: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """`region_attention` of q (T, H, D) to the keys and values `linear(x, weight, bias)`. Returns (T, H, D).

    x: (B, P + N, Dv), the tokens of each image, with or without gradient; weight: (2 H D, Dv) and bias: (2 H D,), the
    rows of keys first. The other options, autocast and errors are those of `region_attention`.
    """
    q, x, weight, bias = inputs("region_cross_attention", q=q, x=x, weight=weight, bias=bias)
    index, seed = index_of("region_cross_attention", regions), dropout_seed(seed, dropout, q)
    return _region_cross_attention(q, x, weight, bias, *index, default_scale(scale, q), dropout, seed)[0]


def _kernel(
    q: Tensor, x: Tensor, weight: Tensor, bias: Tensor, offsets: Tensor, image: Tensor, box: Tensor,
    prefix: Tensor, mean: Tensor, rows: int, columns: int, scale: float, dropout: float, seed: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Output, lse, and kv (B, S, 2, H, D) for the backward."""
    index = offsets, image, box, prefix, mean
    tensors = q, x, weight, bias, *index
    checks.once(signatures.check_region_cross_attention, "region_cross_attention", tensors, rows, columns)
    kv = F.linear(x, weight, bias).view(*x.shape[:2], 2, *q.shape[1:])
    k, v = kv.unbind(2)
    return *attend_regions(q, k, v, Regions(*index, (rows, columns)), scale, dropout, seed), kv


def _fake(q: Tensor, x: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    signatures.check_region_cross_attention("region_cross_attention", q, x, *rest[:-3])
    return empty(q), empty_lse(q), q.new_empty(*x.shape[:2], 2, *q.shape[1:])


def _backward_kernel(
    grad: Tensor, q: Tensor, x: Tensor, weight: Tensor, out: Tensor, lse: Tensor, kv: Tensor, offsets: Tensor,
    image: Tensor, box: Tensor, prefix: Tensor, mean: Tensor, rows: int, columns: int, scale: float, dropout: float,
    x_wants_gradient: bool, seed: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of q, x (of no image where it wants none), weight and bias."""
    tensors = grad, q, x, weight, out, lse, kv, offsets, image, box, prefix, mean
    check = signatures.check_region_cross_attention_backward
    checks.once(check, "region_cross_attention_backward", tensors, rows, columns)
    whole = Regions(offsets, image, box, prefix, mean, (rows, columns))
    count, images = len(x), _images_at_once(kv)
    sums = torch.float32 if images < count and weight.dtype.itemsize < 4 else weight.dtype
    dq = q.new_zeros(q.shape)  # each call writes the rows of its own images' groups: of no image, nobody does
    dx = empty(x if x_wants_gradient else x[:0])
    dweight, dbias = weight.new_zeros(weight.shape, dtype=sums), weight.new_zeros(weight.shape[:1], dtype=sums)
    buffer = kv.new_empty(min(images, count), *kv.shape[1:])
    for first in range(0, count, images):
        chunk = slice(first, first + images)
        dkv = buffer[: count - first]
        regions = replace(whole, image=image - first) if first else whole
        args = grad, q, *kv[chunk].unbind(2), out, lse, regions, scale, dropout, seed
        run("region_attention_backward", q, *args, (dq, *dkv.unbind(2)))
        _add_linear_backward(dkv.flatten(2), x[chunk], weight, dx[chunk], dweight, dbias)
    return dq, dx, dweight.to(weight.dtype), dbias.to(weight.dtype)


def _backward_fake(grad: Tensor, q: Tensor, x: Tensor, weight: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    x_wants_gradient = rest[-2]
    return empty(q), empty(x if x_wants_gradient else x[:0]), empty(weight), weight.new_empty(len(weight))


def _images_at_once(kv: Tensor) -> int:
    """As many as the buffer may hold, or somewhat fewer so that all chunks are alike."""
    limit = CHUNK_BYTES.get(kv.device.type, CHUNK_BYTES_ELSEWHERE)
    images = kv.shape[0]
    most = max(1, limit // max(1, kv[:1].nbytes))
    chunks = max(1, -(-images // most))
    return max(1, -(-images // chunks))


def _add_linear_backward(grad: Tensor, x: Tensor, weight: Tensor, dx: Tensor, dweight: Tensor, dbias: Tensor) -> None:
    """Adds to dweight and dbias, which may be of a wider type; writes dx where it has room."""
    grad, x = grad.flatten(0, 1), x.flatten(0, 1)
    if dweight.dtype == x.dtype:
        dweight.addmm_(grad.T, x)
    else:
        dweight += grad.T @ x
    dbias += grad.sum(0, dtype=dbias.dtype)
    if dx.shape[0]:
        torch.mm(grad, weight, out=dx.flatten(0, 1))


def _save(ctx: Any, inputs: Any, output: Any) -> None:
    q, x, weight, _, *index, ctx.rows, ctx.columns, ctx.scale, ctx.dropout, seed = inputs
    ctx.save_for_backward(q, x, weight, *output, *index, seed)
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)  # else zeros as large as kv


def _vjp(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
    if grad is None:
        return (None,) * 14
    x_wants_gradient = ctx.needs_input_grad[1]
    *tensors, seed = ctx.saved_tensors
    args = *tensors, ctx.rows, ctx.columns, ctx.scale, ctx.dropout, x_wants_gradient, seed
    dq, dx, dweight, dbias = _region_cross_attention_backward(grad, *args)
    return dq, dx if x_wants_gradient else None, dweight, dbias, *[None] * 10


_INDEX = "Tensor offsets, Tensor image, Tensor box, Tensor prefix, Tensor mean, SymInt rows, SymInt columns"
_region_cross_attention = register(
    f"region_cross_attention(Tensor q, Tensor x, Tensor weight, Tensor bias, {_INDEX}, float scale, float dropout, "
    "Tensor? seed) -> (Tensor, Tensor, Tensor)",
    _kernel, _fake, _save, _vjp,
)  # fmt: skip
_region_cross_attention_backward = register(
    "region_cross_attention_backward(Tensor grad, Tensor q, Tensor x, Tensor weight, Tensor out, Tensor lse, "
    f"Tensor kv, {_INDEX}, float scale, float dropout, bool x_wants_gradient, Tensor? seed) "
    "-> (Tensor, Tensor, Tensor, Tensor)",
    _backward_kernel, _backward_fake, nothing, no_second_derivative("region_cross_attention"),
)  # fmt: skip
