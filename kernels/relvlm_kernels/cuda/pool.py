"""`box_mean` and `mrc_pool` of the `cuda` backend, and their gradients; plain matrix products are torch's."""

from __future__ import annotations

import torch
from torch import Tensor

from relvlm_kernels import reference
from relvlm_kernels.cuda.library import BoxMean, Launch, PairLinear, RowSums, dense, int32

STEP = 32  # columns of a step of `pair.cu`, which the width of h must be a multiple of


def box_mean(x: Tensor, box: Tensor, image: Tensor, grid: tuple[int, int]) -> Tensor:
    """See `ops.box_mean`."""
    x = x if x.stride(-1) == 1 else x.contiguous()
    out = x.new_empty(box.shape[0], x.shape[2])
    call = _box_mean(x, out, x, box, image, grid)
    call.struct.source_image, call.struct.source_row = x.stride(0), x.stride(1)
    call.run("box_mean")
    return out


def box_mean_backward(grad: Tensor, x: Tensor, box: Tensor, image: Tensor, grid: tuple[int, int]) -> Tensor:
    grad = grad if grad.stride(-1) == 1 else grad.contiguous()
    dx = torch.empty_like(x, memory_format=torch.contiguous_format)
    call = _box_mean(grad, dx, x, box, image, grid)
    call.struct.source_row, call.struct.backward = grad.stride(0), 1
    call.run("box_mean")
    return dx


def _box_mean(source: Tensor, to: Tensor, x: Tensor, box: Tensor, image: Tensor, grid: tuple[int, int]) -> Launch:
    box, image = int32(box), int32(image)
    images, tokens, width = x.shape
    struct = BoxMean(
        source=source.data_ptr(), to=to.data_ptr(), box=box.data_ptr(), image=image.data_ptr(), count=len(image),
        images=images, tokens=tokens, width=width, grid_rows=grid[0], grid_columns=grid[1],
    )  # fmt: skip
    return Launch(struct, x, source, to, box, image)


def mrc_pool(h: Tensor, subject_rows: Tensor, object_rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """See `ops.mrc_pool`. Where triplets outnumber the rows of h, each row is projected once, by torch."""
    if len(subject_rows) > len(h) or h.shape[1] % STEP:
        return reference.mrc_pool(h, subject_rows, object_rows, weight, bias)
    out = h.new_empty(len(subject_rows), len(weight))
    h, weight, bias = dense(h), dense(weight), bias.contiguous()
    subject_rows, object_rows = subject_rows.contiguous(), object_rows.contiguous()
    struct = PairLinear(
        out=out.data_ptr(), h=h.data_ptr(), weight=weight.data_ptr(), bias=bias.data_ptr(),
        subject=subject_rows.data_ptr(), object=object_rows.data_ptr(), rows=len(h), pairs=len(out), width=h.shape[1],
        features=len(weight),
    )  # fmt: skip
    Launch(struct, h, weight, bias, subject_rows, object_rows).run("pair_linear")
    return out


def mrc_pool_backward(
    grad: Tensor, h: Tensor, subject_rows: Tensor, object_rows: Tensor, weight: Tensor, bias: Tensor,
    out: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    return reference.mrc_pool_backward(grad, h, subject_rows, object_rows, weight, bias, out, _add_rows)


def _add_rows(to: Tensor, rows: Tensor, x: Tensor) -> Tensor:
    """In a fixed order, unlike torch's own on a GPU."""
    return to.add_(_sum_rows(x, rows, len(to)))


def _sum_rows(x: Tensor, rows: Tensor, count: int) -> Tensor:
    """(count, D): row i is the sum of the rows of `x` for which `rows` is i, in their order."""
    x = x.contiguous()
    ordered, places = rows.sort(stable=True)
    starts = torch.searchsorted(ordered, torch.arange(count + 1, device=x.device))
    to = x.new_empty(count, x.shape[1])
    pointers = {"source": x.data_ptr(), "to": to.data_ptr(), "places": places.data_ptr(), "starts": starts.data_ptr()}
    Launch(RowSums(**pointers, rows=count, width=x.shape[1]), x, places, starts).run("row_sums")
    return to
