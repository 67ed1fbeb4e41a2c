"""`box_mean` of the `cpu` backend, and its gradient; `mrc_pool` is matrix products, which are torch's."""

from __future__ import annotations

import torch
from torch import Tensor

from relvlm_kernels.cpu import library
from relvlm_kernels.cpu.library import DTYPES, BoxMean, int32
from relvlm_kernels.native import Filled


def box_mean(x: Tensor, box: Tensor, image: Tensor, grid: tuple[int, int]) -> Tensor:
    """See `ops.box_mean`."""
    out = torch.empty(len(box), x.shape[2], dtype=x.dtype)
    x = x if x.stride(2) == 1 else x.contiguous()
    call = _call(x, box, image, grid)
    call.point(source=x, to=out)
    call.set(source_image=x.stride(0), source_row=x.stride(1))
    library.run("box_mean", "box_mean", call.struct)
    return out


def box_mean_backward(grad: Tensor, x: Tensor, box: Tensor, image: Tensor, grid: tuple[int, int]) -> Tensor:
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    grad = grad.contiguous()
    call = _call(x, box, image, grid)
    call.point(source=grad, to=out)
    call.set(source_row=x.shape[2], backward=True)
    library.run("box_mean_backward", "box_mean", call.struct)
    return out


def _call(x: Tensor, box: Tensor, image: Tensor, grid: tuple[int, int]) -> Filled:
    call = Filled(BoxMean())
    images, tokens, width = x.shape
    call.point(box=int32(box), image=int32(image))
    call.set(groups=len(box), images=images, tokens=tokens, width=width)
    call.set(grid_rows=grid[0], grid_columns=grid[1], type=DTYPES[x.dtype], threads=torch.get_num_threads())
    return call
