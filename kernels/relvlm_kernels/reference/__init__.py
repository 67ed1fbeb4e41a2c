"""The `reference` backend: the ops and their gradients in plain PyTorch, on any device (see `naive` for the ops).

An attention op returns its output and `lse` (T, H), the natural log-sum-exp of each query's scores, mean token
included (fp32, fp64 for fp64; -inf where there is no key, and the output is 0). `<op>_backward` takes the output's
gradient, the op's tensors, and what the forward returned; it gives the gradients of the op's floating-point inputs.
All of it is computed in fp32 or fp64 and rounded once. `to`: where to write them, if not into tensors of its own;
rows may lie apart, as in one buffer for all. With k and v of some images alone (and `regions.image` counted from the
first of them), `region_attention_backward` leaves the other groups' rows of dq as they are.
"""

from __future__ import annotations

import torch

from relvlm_kernels.reference.attention import (
    region_attention,
    region_attention_backward,
    varlen_attention,
    varlen_attention_backward,
)
from relvlm_kernels.reference.fused_rows import add_norm, add_norm_backward, bias_gelu, bias_gelu_backward
from relvlm_kernels.reference.pool import box_mean, box_mean_backward, mrc_pool, mrc_pool_backward
from relvlm_kernels.reference.windows import window_attention, window_attention_backward

__all__ = [
    "add_norm", "add_norm_backward", "bias_gelu", "bias_gelu_backward", "box_mean", "box_mean_backward",
    "mrc_pool", "mrc_pool_backward", "region_attention", "region_attention_backward", "varlen_attention",
    "varlen_attention_backward", "window_attention", "window_attention_backward",
]  # fmt: skip


def missing() -> str:
    return ""


def refusal(device: torch.device, dtype: torch.dtype, width: int | None) -> str:
    return ""


def description() -> str:
    return "plain PyTorch, any device and dtype"
