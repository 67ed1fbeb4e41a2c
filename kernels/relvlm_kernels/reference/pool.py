"""`box_mean` and `mrc_pool`, as matrix products."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from relvlm_kernels.reference.arithmetic import wide
from relvlm_kernels.regions import box_mask
from relvlm_kernels.slots import Slots, by_image

AddRows = Callable[[Tensor, Tensor, Tensor], Tensor]


def box_mean(x: Tensor, box: Tensor, image: Tensor, grid: tuple[int, int]) -> Tensor:
    """See `ops.box_mean`. One matrix product per image over all its boxes: no patch is copied."""
    slots, weights_BGN, patches_BND = _box_weights(x, box, image, grid)
    return slots.pack_rows((weights_BGN @ patches_BND).flatten(0, 1)).to(x.dtype)


def box_mean_backward(grad: Tensor, x: Tensor, box: Tensor, image: Tensor, grid: tuple[int, int]) -> Tensor:
    slots, weights_BGN, patches_BND = _box_weights(x, box, image, grid)
    dx = torch.zeros_like(x)
    dpatches = weights_BGN.transpose(1, 2) @ slots.pad(*wide(grad))
    dx[:, x.shape[1] - patches_BND.shape[1] :] = dpatches.to(x.dtype)
    return dx


def _box_weights(x: Tensor, box: Tensor, image: Tensor, grid: tuple[int, int]) -> tuple[Slots, Tensor, Tensor]:
    """Boxes by image, 1/n on the patches inside each (B, most boxes, N), and the patches."""
    (x,) = wide(x)
    inside = box_mask(box, grid).to(x.dtype)
    slots = by_image(image.long(), torch.ones_like(image, dtype=torch.bool), x.shape[0])
    return slots, slots.pad(inside / inside.sum(-1, keepdim=True)), x[:, x.shape[1] - inside.shape[1] :]


def mrc_pool(h: Tensor, subject_rows: Tensor, object_rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """See `ops.mrc_pool`. Where triplets outnumber the rows of h, each row is projected once, as either part."""
    subject_weight, object_weight = weight.chunk(2, dim=1)
    if len(subject_rows) > len(h):
        out = torch.addmm(bias, h, subject_weight.T)[subject_rows]
        out += (h @ object_weight.T)[object_rows]
    else:
        out = torch.addmm(bias, h[subject_rows], subject_weight.T)
        out.addmm_(h[object_rows], object_weight.T)
    return out.relu_()


def _add_rows(to: Tensor, rows: Tensor, x: Tensor) -> Tensor:
    return to.index_add_(0, rows, x)


def mrc_pool_backward(
    grad: Tensor, h: Tensor, subject_rows: Tensor, object_rows: Tensor, weight: Tensor, bias: Tensor,
    out: Tensor, add_rows: AddRows = _add_rows,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """`add_rows(to, rows, x)` adds the rows of x to these of `to`."""
    grad = grad * (out > 0)
    dh, dweight = torch.zeros_like(h), torch.empty_like(weight, memory_format=torch.contiguous_format)
    for rows, part, dpart in zip(
        (subject_rows, object_rows), weight.chunk(2, dim=1), dweight.chunk(2, dim=1), strict=True
    ):
        if len(rows) > len(h):
            grad_of_row = add_rows(grad.new_zeros(len(h), grad.shape[1]), rows, grad)
            dh.addmm_(grad_of_row, part)
            torch.mm(grad_of_row.T, h, out=dpart)
        else:
            add_rows(dh, rows, grad @ part)
            torch.mm(grad.T, h[rows], out=dpart)
    return dh, dweight, grad.sum(0)
