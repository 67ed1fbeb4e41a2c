"""What the tensors of each op must fit, and of its backward: shapes, dtypes and devices alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from relvlm_kernels.checks import Arguments, check_grid


def check_region_attention(
    op: str, q: Tensor, k: Tensor, v: Tensor, offsets: Tensor, image: Tensor, box: Tensor, prefix: Tensor, mean: Tensor,
    rows: int, columns: int,
) -> Arguments:  # fmt: skip
    arguments = Arguments(op)
    arguments.floats("q", q, "T", "H", "D")
    arguments.floats("k", k, "B", "S", "H", "D")
    arguments.floats("v", v, "B", "S", "H", "D")
    _check_regions(arguments, offsets, image, box, prefix, mean, (rows, columns), k.shape[1])
    return arguments


def check_region_attention_backward(
    op: str, grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, *index: Any
) -> None:
    check_saved(check_region_attention(op, q, k, v, *index), "T", grad, out, lse)


def check_region_cross_attention(op: str, q: Tensor, x: Tensor, weight: Tensor, bias: Tensor, *index: Any) -> None:
    arguments = _check_projection(op, q, x, weight, *index)
    arguments.floats("bias", bias, "2 H D")


def check_region_cross_attention_backward(
    op: str, grad: Tensor, q: Tensor, x: Tensor, weight: Tensor, out: Tensor, lse: Tensor, kv: Tensor, *index: Any
) -> None:
    arguments = _check_projection(op, q, x, weight, *index)
    arguments.floats("kv", kv, "B", "S", "2", "H", "D")
    check_saved(arguments, "T", grad, out, lse)


def _check_projection(
    op: str, q: Tensor, x: Tensor, weight: Tensor, offsets: Tensor, image: Tensor, box: Tensor, prefix: Tensor,
    mean: Tensor, rows: int, columns: int,
) -> Arguments:  # fmt: skip
    arguments = Arguments(op)
    arguments.floats("q", q, "T", "H", "D")
    arguments.floats("x", x, "B", "S", "Dv")
    arguments.sizes["2 H D"] = 2 * q.shape[1] * q.shape[2]
    arguments.floats("weight", weight, "2 H D", "Dv")
    _check_regions(arguments, offsets, image, box, prefix, mean, (rows, columns), x.shape[1])
    return arguments


def _check_regions(
    arguments: Arguments, offsets: Tensor, image: Tensor, box: Tensor, prefix: Tensor, mean: Tensor,
    grid: tuple[int, int], tokens: int,
) -> None:  # fmt: skip
    arguments.index("image", image, "G")
    arguments.sizes["G + 1"] = image.shape[0] + 1  # len() would be a constant to torch.compile
    arguments.index("offsets", offsets, "G + 1")
    arguments.index("box", box, "G", "4")
    arguments.flags("prefix", prefix, "G")
    arguments.flags("mean", mean, "G")
    check_grid(arguments.op, grid, tokens)


def check_varlen_attention(op: str, q: Tensor, k: Tensor, v: Tensor, cu_q: Tensor, cu_k: Tensor) -> Arguments:
    arguments = Arguments(op)
    arguments.floats("q", q, "Tq", "H", "D")
    arguments.floats("k", k, "Tk", "H", "D")
    arguments.floats("v", v, "Tk", "H", "D")
    arguments.index("cu_q", cu_q, "sequences + 1")
    arguments.index("cu_k", cu_k, "sequences + 1")
    return arguments


def check_varlen_attention_backward(
    op: str, grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, cu_q: Tensor, cu_k: Tensor
) -> None:
    check_saved(check_varlen_attention(op, q, k, v, cu_q, cu_k), "Tq", grad, out, lse)


def check_varlen_attention_kvpacked(op: str, q: Tensor, kv: Tensor, cu_q: Tensor, cu_k: Tensor) -> Arguments:
    arguments = Arguments(op)
    arguments.floats("q", q, "Tq", "H", "D")
    arguments.floats("kv", kv, "Tk", "2", "H", "D")
    arguments.index("cu_q", cu_q, "sequences + 1")
    arguments.index("cu_k", cu_k, "sequences + 1")
    return arguments


def check_varlen_attention_kvpacked_backward(
    op: str, grad: Tensor, q: Tensor, kv: Tensor, out: Tensor, lse: Tensor, cu_q: Tensor, cu_k: Tensor
) -> None:
    check_saved(check_varlen_attention_kvpacked(op, q, kv, cu_q, cu_k), "Tq", grad, out, lse)


def check_varlen_attention_qkvpacked(op: str, qkv: Tensor, cu: Tensor) -> Arguments:
    arguments = Arguments(op)
    arguments.floats("qkv", qkv, "T", "3", "H", "D")
    arguments.index("cu", cu, "sequences + 1")
    return arguments


def check_window_attention(op: str, qkv: Tensor, bias: Tensor, mask: Tensor | None = None) -> Arguments:
    """Raises ValueError, too, where windows do not come in whole rounds of the mask."""
    arguments = Arguments(op)
    arguments.floats("qkv", qkv, "B", "N", "3", "H", "D")
    arguments.floats("bias", bias, "H", "N", "N")
    if mask is not None:
        arguments.floats("mask", mask, "W", "N", "N")
        if qkv.shape[0] % mask.shape[0]:
            raise ValueError(f"{op}: {qkv.shape[0]} windows are no multiple of the mask's {mask.shape[0]}")
    return arguments


def check_window_attention_backward(
    op: str, grad: Tensor, qkv: Tensor, bias: Tensor, out: Tensor, lse: Tensor, mask: Tensor | None = None
) -> None:
    check_saved(check_window_attention(op, qkv, bias, mask), "B N", grad, out, lse)


def check_varlen_attention_qkvpacked_backward(
    op: str, grad: Tensor, qkv: Tensor, out: Tensor, lse: Tensor, cu: Tensor
) -> None:
    check_saved(check_varlen_attention_qkvpacked(op, qkv, cu), "T", grad, out, lse)


def check_box_mean(op: str, x: Tensor, box: Tensor, image: Tensor, rows: int, columns: int) -> Arguments:
    arguments = Arguments(op)
    arguments.floats("x", x, "B", "S", "D")
    arguments.index("image", image, "G")
    arguments.index("box", box, "G", "4")
    check_grid(op, (rows, columns), x.shape[1])
    return arguments


def check_box_mean_backward(
    op: str, grad: Tensor, x: Tensor, box: Tensor, image: Tensor, rows: int, columns: int
) -> None:
    check_box_mean(op, x, box, image, rows, columns).floats("grad", grad, "G", "D")


def check_mrc_pool(
    op: str, h: Tensor, subject_rows: Tensor, object_rows: Tensor, weight: Tensor, bias: Tensor
) -> Arguments:
    arguments = Arguments(op)
    arguments.floats("h", h, "T", "D")
    arguments.index("subject_rows", subject_rows, "R")
    arguments.index("object_rows", object_rows, "R")
    arguments.sizes["2 D"] = 2 * h.shape[1]
    arguments.floats("weight", weight, "F", "2 D")
    arguments.floats("bias", bias, "F")
    return arguments


def check_mrc_pool_backward(
    op: str, grad: Tensor, h: Tensor, subject_rows: Tensor, object_rows: Tensor, weight: Tensor, bias: Tensor,
    out: Tensor,
) -> None:  # fmt: skip
    arguments = check_mrc_pool(op, h, subject_rows, object_rows, weight, bias)
    arguments.floats("grad", grad, "R", "F")
    arguments.floats("out", out, "R", "F")


def check_add_norm(op: str, x: Tensor, residual: Tensor, weight: Tensor, shift: Tensor) -> None:
    arguments = Arguments(op)
    arguments.floats("residual", residual, "T", "D")
    narrow = residual.dtype == torch.float32 and x.dtype.itemsize == 2  # a product under autocast
    arguments.floats("x", x, "T", "D", dtype=x.dtype if narrow else None)
    arguments.floats("weight", weight, "D")
    arguments.floats("shift", shift, "D")


def check_add_norm_saved(op: str, grad: Tensor, total: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor) -> None:
    """What the backward has: the output's gradient, and what the forward gave."""
    arguments = Arguments(op)
    arguments.floats("total", total, "T", "D")
    arguments.floats("grad", grad, "T", "D")
    arguments.floats("weight", weight, "D")
    wide = torch.float64 if total.dtype == torch.float64 else torch.float32
    arguments.floats("mean", mean, "T", dtype=wide)
    arguments.floats("rstd", rstd, "T", dtype=wide)


def check_gelu_linear(op: str, x: Tensor, bias: Tensor, weight: Tensor, out_bias: Tensor) -> None:
    arguments = Arguments(op)
    arguments.floats("x", x, "T", "F")
    arguments.floats("bias", bias, "F")
    arguments.floats("weight", weight, "D", "F")
    arguments.floats("out_bias", out_bias, "D")


def check_gelu_linear_backward(op: str, grad: Tensor, x: Tensor, bias: Tensor, weight: Tensor) -> None:
    arguments = Arguments(op)
    arguments.floats("x", x, "T", "F")
    arguments.floats("bias", bias, "F")
    arguments.floats("weight", weight, "D", "F")
    arguments.floats("grad", grad, "T", "D")


def check_saved(arguments: Arguments, rows: str, grad: Tensor, out: Tensor, lse: Tensor) -> None:
    """What the backward of an attention has besides: the output's gradient, and what the forward gave."""
    axes, sums = (*rows.split(), "H"), torch.float64 if grad.dtype == torch.float64 else torch.float32
    arguments.floats("grad", grad, *axes, "D")
    arguments.floats("out", out, *axes, "D")
    arguments.floats("lse", lse, *axes, dtype=sums)
