"""The `triton` backend: the ops on CUDA devices, in bfloat16, float16 and float32 (accumulated in float32).

Same signatures as in `reference`. Results do not depend on the order in which programs run. Under
TRITON_INTERPRET=1, set before triton is imported, the kernels run on CPU tensors, slowly: for tests.
`window_attention` is that of `reference`.
"""

from __future__ import annotations

import torch
import triton
from triton import knobs

from relvlm_kernels.reference import window_attention, window_attention_backward
from relvlm_kernels.triton.attention import (
    region_attention,
    region_attention_backward,
    varlen_attention,
    varlen_attention_backward,
)
from relvlm_kernels.triton.box_mean import box_mean, box_mean_backward
from relvlm_kernels.triton.fused_rows import add_norm, add_norm_backward, bias_gelu, bias_gelu_backward
from relvlm_kernels.triton.mrc_pool import mrc_pool, mrc_pool_backward
from relvlm_kernels.triton.tiles import MAX_WIDTH

__all__ = [
    "add_norm", "add_norm_backward", "bias_gelu", "bias_gelu_backward", "box_mean", "box_mean_backward",
    "mrc_pool", "mrc_pool_backward", "region_attention", "region_attention_backward", "varlen_attention",
    "varlen_attention_backward", "window_attention", "window_attention_backward",
]  # fmt: skip

DTYPES = (torch.bfloat16, torch.float16, torch.float32)


def missing() -> str:
    """Why the backend cannot run here; empty where it can."""
    if knobs.runtime.interpret or torch.cuda.is_available():
        return ""
    return "no CUDA device"


def refusal(device: torch.device, dtype: torch.dtype, width: int | None) -> str:
    """Why it does not take such tensors; empty where it does."""
    if device.type != ("cpu" if knobs.runtime.interpret else "cuda") or dtype not in DTYPES:
        return f"no kernels for {dtype} on {device}"
    return f"no kernels for heads of {width}" if width and width > MAX_WIDTH else ""


def description() -> str:
    return f"triton {triton.__version__}{', interpreted' if knobs.runtime.interpret else ''}"
