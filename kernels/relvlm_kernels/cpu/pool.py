"""`box_mean` of the `cpu` backend, and its gradient; `mrc_pool` is matrix products, which are torch's."""

from __future__ import annotations

import torch
from torch import Tensor

from relvlm_kernels.cpu import library
from relvlm_kernels.cpu.library import DTYPES, BoxMean, int32


def box_mean(x: Tensor, box: Tensor, image: Tensor, grid: tuple[int, int]) -> Tensor:
    """See `ops.box_mean`."""
    out = torch.empty(len(box), x.shape[2], dtype=x.dtype)
    x = x if x.stride(2) == 1 else x.contiguous()
    box, image = int32(box), int32(image)
    call = _call(x, x, out, box, image, grid)
    call.source_image, call.source_row = x.stride(0), x.stride(1)
    library.run("box_mean", "box_mean", call)
    return out


def box_mean_backward(grad: Tensor, x: Tensor, box: Tensor, image: Tensor, grid: tuple[int, int]) -> Tensor:
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    grad, box, image = grad.contiguous(), int32(box), int32(image)
    call = _call(x, grad, out, box, image, grid)
    call.source_row, call.backward = x.shape[2], 1
    library.run("box_mean_backward", "box_mean", call)
    return out


def _call(x: Tensor, source: Tensor, to: Tensor, box: Tensor, image: Tensor, grid: tuple[int, int]) -> BoxMean:
    """Points at tensors, which must outlive the call."""
    images, tokens, width = x.shape
    return BoxMean(
        source=source.data_ptr(), to=to.data_ptr(), box=box.data_ptr(), image=image.data_ptr(), groups=len(box),
        images=images, tokens=tokens, width=width, grid_rows=grid[0], grid_columns=grid[1], type=DTYPES[x.dtype],
        threads=torch.get_num_threads(),
    )  # fmt: skip
