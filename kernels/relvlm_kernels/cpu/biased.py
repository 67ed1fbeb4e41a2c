"""`window_attention` of the `cpu` backend and its gradients: packed sequences of one length, with a bias."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from relvlm_kernels.cpu.attention import backward_call, forward_call, run_varlen
from relvlm_kernels.native import Filled

ROW = 16  # elements that rows of a bias are a multiple of: 64 bytes or more
CHUNKS = 16  # gradients of the bias that are summed apart, whatever the threads


def window_attention(qkv: Tensor, bias: Tensor, mask: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
    """See `windows.window_attention`."""
    call, (out, lse) = forward_call(*qkv.flatten(0, 1).unbind(1), scale, 0.0, None)
    _bias(call, bias, mask, qkv)
    _run("window_attention", call, qkv)
    return out.view(*qkv.shape[:2], *out.shape[1:]), lse.view(*qkv.shape[:2], -1)


def window_attention_backward(
    grad: Tensor, qkv: Tensor, bias: Tensor, mask: Tensor | None, out: Tensor, lse: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    dqkv = torch.empty_like(qkv, memory_format=torch.contiguous_format)
    q, k, v = qkv.flatten(0, 1).unbind(1)
    saved = (x.flatten(0, 1) for x in (out, lse))
    call, _ = backward_call(grad.flatten(0, 1), q, k, v, *saved, scale, 0.0, None, dqkv.flatten(0, 1).unbind(1))
    rows = _bias(call, bias, mask, qkv)
    chunk = max(1, -(-len(qkv) // CHUNKS))
    dbias = rows.new_zeros(-(-len(qkv) // chunk), *rows.shape)
    call.point(dbias=dbias)
    call.set(chunk=chunk)
    _run("window_attention_backward", call, qkv)
    return dqkv, dbias.sum(0)[..., : bias.shape[-1]].to(bias.dtype)


def _bias(call: Filled, bias: Tensor, mask: Tensor | None, qkv: Tensor) -> Tensor:
    """Sets the bias and its mask, in the type of the arithmetic and with rows of whole vectors, which it returns."""
    dtype, gap = torch.float64 if qkv.dtype == torch.float64 else torch.float32, -bias.shape[-1] % ROW
    rows = F.pad(bias.to(dtype), (0, gap)).contiguous()
    call.point(bias=rows, mask=None if mask is None else F.pad(mask.to(dtype), (0, gap)).contiguous())
    call.set(bias_row=rows.shape[-1], masks=1 if mask is None else len(mask))
    return rows


def _run(op: str, call: Filled, qkv: Tensor) -> None:
    windows, tokens = qkv.shape[:2]
    cu = torch.arange(windows + 1, dtype=torch.int32) * tokens
    run_varlen(op, call, cu, cu)
