"""Fused ops for text that looks at boxes of images; depends on torch alone."""

from relvlm_kernels.backends import check_choice, chosen
from relvlm_kernels.cross import region_cross_attention
from relvlm_kernels.fused_rows import add_norm, gelu_linear
from relvlm_kernels.ops import box_mean, mrc_pool, region_attention, varlen_attention
from relvlm_kernels.packed import (
    attention_qkvpacked,
    varlen_attention_kvpacked,
    varlen_attention_qkvpacked,
)
from relvlm_kernels.regions import Regions
from relvlm_kernels.windows import window_attention

__all__ = [
    "Regions", "add_norm", "attention_qkvpacked", "box_mean", "chosen", "gelu_linear", "mrc_pool", "region_attention",
    "region_cross_attention", "varlen_attention", "varlen_attention_kvpacked", "varlen_attention_qkvpacked",
    "window_attention",
]  # fmt: skip

check_choice()  # a backend asked for by RELVLM_KERNELS and not there is an error at import, not at the first step
