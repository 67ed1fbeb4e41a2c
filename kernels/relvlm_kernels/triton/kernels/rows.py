"""Passes over rows: dropout, residual and LayerNorm, a program per row; bias and GELU, a program per tile."""

import triton
import triton.language as tl

from relvlm_kernels.triton.kernels.masks import ROUNDS

FREQUENCY = tl.constexpr(0.3989422804014327)  # 1 / sqrt(2 pi)
HALF_ROOT = tl.constexpr(0.7071067811865476)


@triton.jit
def keep_features(seed, row, threshold, keep_scale, BLOCK: tl.constexpr):
    """What dropout multiplies a row with, of BLOCK columns, a multiple of 64: see dropout.py."""
    counter = tl.arange(0, BLOCK // 4)
    none = counter * 0
    a, b, c, d = tl.philox(tl.load(seed), counter, none + row, none, none + 1, n_rounds=ROUNDS)
    words = tl.join(tl.join(a, c), tl.join(b, d)).reshape(BLOCK // 64, 16, 4)
    words = tl.permute(words, (0, 2, 1)).reshape(BLOCK)
    return tl.where(words >= threshold.to(tl.uint32, bitcast=True), keep_scale, 0.0)


@triton.jit(do_not_specialize=["threshold", "keep_scale", "eps"])
def add_norm(
    x, residual, weight, shift, out, total, mean, rstd, seed, threshold, keep_scale, eps, D: tl.constexpr,
    DROPOUT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)
    d = tl.arange(0, BLOCK)
    inside = d < D
    place = row.to(tl.int64) * D + d
    branch = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
    if DROPOUT:
        branch *= keep_features(seed, row, threshold, keep_scale, BLOCK)
    found = tl.load(residual + place, mask=inside, other=0.0).to(tl.float32) + branch
    tl.store(total + place, found.to(total.dtype.element_ty), mask=inside)
    middle = tl.sum(tl.where(inside, found, 0.0), 0) / D
    off = tl.where(inside, found - middle, 0.0)
    scale = 1.0 / tl.sqrt(tl.sum(off * off, 0) / D + eps)
    tl.store(mean + row, middle)
    tl.store(rstd + row, scale)
    factor = tl.load(weight + d, mask=inside, other=0.0).to(tl.float32)
    found = off * scale * factor + tl.load(shift + d, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + place, found.to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["rows", "threshold", "keep_scale"])
def add_norm_backward(
    grad, total, mean, rstd, weight, dresidual, dx, sums, seed, rows, threshold, keep_scale, D: tl.constexpr,
    DROPOUT: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """A strip of rows; `sums` (programs, 2, D) gets its gradients of weight and shift."""
    d = tl.arange(0, BLOCK)
    inside = d < D
    factor = tl.load(weight + d, mask=inside, other=0.0).to(tl.float32)
    dweight = tl.zeros([BLOCK], tl.float32)
    dshift = tl.zeros([BLOCK], tl.float32)
    first = tl.program_id(0) * ROWS
    for i in range(0, tl.minimum(ROWS, rows - first)):
        row = first + i
        place = row.to(tl.int64) * D + d
        g = tl.load(grad + place, mask=inside, other=0.0).to(tl.float32)
        scale = tl.load(rstd + row)
        off = tl.load(total + place, mask=inside, other=0.0).to(tl.float32) - tl.load(mean + row)
        normal = tl.where(inside, off * scale, 0.0)
        dweight += g * normal
        dshift += g
        weighed = g * factor
        found = (weighed - tl.sum(weighed, 0) / D - normal * (tl.sum(weighed * normal, 0) / D)) * scale
        tl.store(dresidual + place, found.to(dresidual.dtype.element_ty), mask=inside)
        if DROPOUT:
            found *= keep_features(seed, row, threshold, keep_scale, BLOCK)
            tl.store(dx + place, found.to(dx.dtype.element_ty), mask=inside)
    to = sums + tl.program_id(0).to(tl.int64) * 2 * D + d
    tl.store(to, dweight, mask=inside)
    tl.store(to + D, dshift, mask=inside)


@triton.jit
def _biased(x, bias, place, column, inside):
    found = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
    return found + tl.load(bias + column, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def bias_gelu(x, bias, out, size, F: tl.constexpr, BLOCK: tl.constexpr):
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = place < size
    z = _biased(x, bias, place, place % F, inside)
    found = z * 0.5 * (1.0 + tl.erf(z * HALF_ROOT))
    tl.store(out + place, found.to(out.dtype.element_ty), mask=inside)


@triton.jit
def bias_gelu_backward(grad, x, bias, out, dx, size, F: tl.constexpr, BLOCK: tl.constexpr):
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = place < size
    z = _biased(x, bias, place, place % F, inside)
    below = 0.5 * (1.0 + tl.erf(z * HALF_ROOT))
    tl.store(out + place, (z * below).to(out.dtype.element_ty), mask=inside)
    slope = below + z * tl.exp(-0.5 * z * z) * FREQUENCY
    g = tl.load(grad + place, mask=inside, other=0.0).to(tl.float32)
    tl.store(dx + place, (g * slope).to(dx.dtype.element_ty), mask=inside)
