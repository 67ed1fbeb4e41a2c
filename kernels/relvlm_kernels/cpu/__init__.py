"""The `cpu` backend: attention, `box_mean` and passes over rows in C++ (csrc/cpu); `mrc_pool` is that of `reference`.

Index tensors are checked in C++, and what is wrong with them is a ValueError. Runs on `torch.get_num_threads()` threads
where OpenMP was there at build time; results do not depend on their number. The widest instructions that the processor
has are taken unless RELVLM_CPU_ISA, read once, names others: avx512, avx2 or baseline.
"""

from relvlm_kernels.cpu.attention import (
    region_attention,
    region_attention_backward,
    varlen_attention,
    varlen_attention_backward,
)
from relvlm_kernels.cpu.biased import window_attention, window_attention_backward
from relvlm_kernels.cpu.fused_rows import add_norm, add_norm_backward, bias_gelu, bias_gelu_backward
from relvlm_kernels.cpu.library import description, instructions, missing, refusal
from relvlm_kernels.cpu.pool import box_mean, box_mean_backward
from relvlm_kernels.reference import mrc_pool, mrc_pool_backward

__all__ = [
    "add_norm", "add_norm_backward", "bias_gelu", "bias_gelu_backward", "box_mean", "box_mean_backward",
    "description", "instructions", "missing", "mrc_pool", "mrc_pool_backward", "refusal", "region_attention",
    "region_attention_backward", "varlen_attention", "varlen_attention_backward", "window_attention",
    "window_attention_backward",
]  # fmt: skip
