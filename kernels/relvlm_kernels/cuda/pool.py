"""`box_mean` and `mrc_pool` of the `cuda` backend, and their gradients; plain matrix products are torch's."""

from __future__ import annotations

import torch
from torch import Tensor

from relvlm_kernels import eager
from relvlm_kernels.cuda.library import BoxMean, Launch, PairLinear, RowSums, int32

STEP = 32  # columns of a step of `pair.cu`, which the width of h must be a multiple of


def box_mean(x: Tensor, box: Tensor, image: Tensor, grid: tuple[int, int]) -> Tensor:
    """See `ops.box_mean`."""
    x = x if x.stride(-1) == 1 else x.contiguous()
    out = x.new_empty(box.shape[0], x.shape[2])
    call = _box_mean(x, out, x, box, image, grid)
    call.set(source_image=x.stride(0), source_row=x.stride(1))
    call.run("box_mean")
    return out


def box_mean_backward(grad: Tensor, x: Tensor, box: Tensor, image: Tensor, grid: tuple[int, int]) -> Tensor:
    grad = grad if grad.stride(-1) == 1 else grad.contiguous()
    dx = torch.empty_like(x, memory_format=torch.contiguous_format)
    call = _box_mean(grad, dx, x, box, image, grid)
    call.set(source_row=grad.stride(0), backward=1)
    call.run("box_mean")
    return dx


def _box_mean(source: Tensor, to: Tensor, x: Tensor, box: Tensor, image: Tensor, grid: tuple[int, int]) -> Launch:
    call = Launch(BoxMean(), x)
    call.point(source=source, to=to, box=int32(box), image=int32(image))
    images, tokens, width = x.shape
    call.set(count=len(image), images=images, tokens=tokens, width=width)
    call.set(grid_rows=grid[0], grid_columns=grid[1])
    return call


def mrc_pool(h: Tensor, subject_rows: Tensor, object_rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """See `ops.mrc_pool`. Where triplets outnumber the rows of h, each row is projected once, by torch."""
    if len(subject_rows) > len(h) or h.shape[1] % STEP:
        return eager.mrc_pool(h, subject_rows, object_rows, weight, bias)
    out = h.new_empty(len(subject_rows), len(weight))
    call = Launch(PairLinear(), h)
    tensors = {"h": h, "weight": weight, "bias": bias, "subject": subject_rows, "object": object_rows}
    call.point(out=out, **{name: x.contiguous() for name, x in tensors.items()})
    call.set(rows=len(h), pairs=len(out), width=h.shape[1], features=len(weight))
    call.run("pair_linear")
    return out


def mrc_pool_backward(
    grad: Tensor, h: Tensor, subject_rows: Tensor, object_rows: Tensor, weight: Tensor, bias: Tensor,
    out: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    return eager.mrc_pool_backward(grad, h, subject_rows, object_rows, weight, bias, out, _add_rows)


def _add_rows(to: Tensor, rows: Tensor, x: Tensor) -> Tensor:
    """In a fixed order, unlike torch's own on a GPU."""
    return to.add_(_sum_rows(x, rows, len(to)))


def _sum_rows(x: Tensor, rows: Tensor, count: int) -> Tensor:
    """(count, D): row i is the sum of the rows of `x` for which `rows` is i, in their order."""
    x = x.contiguous()
    ordered, places = rows.sort(stable=True)
    starts = torch.searchsorted(ordered, torch.arange(count + 1, device=x.device))
    to = x.new_empty(count, x.shape[1])
    call = Launch(RowSums(), x)
    call.point(source=x, to=to, places=places, starts=starts)
    call.set(rows=count, width=x.shape[1])
    call.run("row_sums")
    return to
