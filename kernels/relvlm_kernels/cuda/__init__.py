"""The `cuda` backend: attention and pooling in CUDA C++ (csrc/cuda) for GPUs from Ampere (sm_80) on, on tensor cores.

float32, bfloat16 and float16, with sums in fp32; heads up to 128 wide where the GPU's shared memory is large enough.
Runs on torch's current stream and never waits for the device. Boxes and offsets are checked on the device: wrong ones
end the stream in an error, as with torch's own kernels; a group of an image that is not there sees nothing. Results do
not depend on the order in which threads run: there are no atomics. The passes over rows (`add_norm`, `bias_gelu`) are
those of `triton`, which torch for CUDA brings along; `window_attention` is that of `reference`.
"""

from relvlm_kernels.cuda.attention import (
    region_attention,
    region_attention_backward,
    varlen_attention,
    varlen_attention_backward,
)
from relvlm_kernels.cuda.fused_rows import add_norm, add_norm_backward, bias_gelu, bias_gelu_backward
from relvlm_kernels.cuda.library import description, missing, refusal
from relvlm_kernels.cuda.pool import box_mean, box_mean_backward, mrc_pool, mrc_pool_backward
from relvlm_kernels.reference import window_attention, window_attention_backward

__all__ = [
    "add_norm", "add_norm_backward", "bias_gelu", "bias_gelu_backward", "box_mean", "box_mean_backward",
    "description", "missing", "mrc_pool", "mrc_pool_backward", "refusal", "region_attention",
    "region_attention_backward", "varlen_attention", "varlen_attention_backward", "window_attention",
    "window_attention_backward",
]  # fmt: skip
