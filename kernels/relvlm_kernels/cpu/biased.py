"""`window_attention` of the `cpu` backend and its gradients: packed sequences of one length, with a bias."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from relvlm_kernels.cpu.attention import backward_call, forward_call, run_varlen
from relvlm_kernels.cpu.library import Call

ROW = 16  # elements that rows of a bias are a multiple of: 64 bytes or more
CHUNKS = 16  # gradients of the bias that are summed apart, whatever the threads


def window_attention(qkv: Tensor, bias: Tensor, mask: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
    """See `windows.window_attention`."""
    q, k, v = qkv.flatten(0, 1).unbind(1)
    call, (out, lse), _alive = forward_call(q, k, v, scale, 0.0, None)
    _rows, _mask = _bias(call, bias, mask, qkv)
    _run("window_attention", call, qkv)
    return out.unflatten(0, qkv.shape[:2]), lse.unflatten(0, qkv.shape[:2])


def window_attention_backward(
    grad: Tensor, qkv: Tensor, bias: Tensor, mask: Tensor | None, out: Tensor, lse: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    dqkv = torch.empty_like(qkv, memory_format=torch.contiguous_format)
    q, k, v = qkv.flatten(0, 1).unbind(1)
    grad, out, lse = (x.flatten(0, 1) for x in (grad, out, lse))
    dq, dk, dv = dqkv.flatten(0, 1).unbind(1)
    call, _, _alive = backward_call(grad, q, k, v, out, lse, scale, 0.0, None, (dq, dk, dv))
    rows, _mask = _bias(call, bias, mask, qkv)
    chunk = max(1, -(-len(qkv) // CHUNKS))
    dbias = rows.new_zeros(-(-len(qkv) // chunk), *rows.shape)
    call.dbias, call.chunk = dbias.data_ptr(), chunk
    _run("window_attention_backward", call, qkv)
    return dqkv, dbias.sum(0)[..., : bias.shape[-1]].to(bias.dtype)


def _bias(call: Call, bias: Tensor, mask: Tensor | None, qkv: Tensor) -> tuple[Tensor, Tensor | None]:
    """Sets the bias and its mask, in the type of the arithmetic and with rows of whole vectors, which it returns."""
    dtype, gap = torch.float64 if qkv.dtype == torch.float64 else torch.float32, -bias.shape[-1] % ROW
    rows = F.pad(bias.to(dtype), (0, gap)).contiguous()
    call.bias, call.bias_row, call.masks = rows.data_ptr(), rows.shape[-1], 1
    if mask is not None:
        mask = F.pad(mask.to(dtype), (0, gap)).contiguous()
        call.mask, call.masks = mask.data_ptr(), mask.shape[0]
    return rows, mask


def _run(op: str, call: Call, qkv: Tensor) -> None:
    windows, tokens = qkv.shape[:2]
    cu = torch.arange(windows + 1, dtype=torch.int32) * tokens
    run_varlen(op, call, cu, cu)
