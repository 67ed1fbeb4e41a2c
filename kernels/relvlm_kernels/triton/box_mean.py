"""`box_mean`: forward, a program per box; backward, a program per tile of tokens, with all boxes of their image."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from relvlm_kernels.triton.kernels import boxes
from relvlm_kernels.triton.launch import cdiv, dense_rows, launch
from relvlm_kernels.triton.plan import by_image

PATCHES, FEATURES = 32, 128  # of a forward's tile
TOKENS, BOXES, GRAD_FEATURES = 32, 16, 64  # of a backward's


def box_mean(x: Tensor, box: Tensor, image: Tensor, grid: tuple[int, int]) -> Tensor:
    """See `ops.box_mean`."""
    x = dense_rows(x)
    out = torch.empty(len(image), x.shape[2], dtype=x.dtype, device=x.device)
    arguments = _grid(x, grid) | {
        "x": x, "box": _int32(box), "image": _int32(image), "out": out, "images": x.shape[0],
        "x_image": x.stride(0), "x_row": x.stride(1),        "BLOCK_P": PATCHES, "BLOCK_D": FEATURES,
    }  # fmt: skip
    launch(boxes.box_mean, len(image) * cdiv(x.shape[2], FEATURES), arguments)
    return out


def box_mean_backward(grad: Tensor, x: Tensor, box: Tensor, image: Tensor, grid: tuple[int, int]) -> Tensor:
    grad, count = dense_rows(grad), len(image)
    dx = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    one_each = torch.arange(count + 1, dtype=torch.int32, device=x.device)
    no_flag = torch.zeros(count, dtype=torch.bool, device=x.device)
    plan = by_image(one_each, image, box, no_flag, no_flag, x.shape[0], count, partial=True)
    token_tiles = cdiv(x.shape[1], TOKENS)
    arguments = _grid(x, grid) | {
        "grad": grad, "dx": dx, "starts": plan.starts, "table": plan.table, "boxes": count, "tokens": x.shape[1],
        "token_tiles": token_tiles, "grad_row": grad.stride(0), "BLOCK_T": TOKENS, "BLOCK_G": BOXES,
        "BLOCK_D": GRAD_FEATURES,
    }  # fmt: skip
    launch(boxes.box_mean_backward, x.shape[0] * token_tiles * cdiv(x.shape[2], GRAD_FEATURES), arguments)
    return dx


def _grid(x: Tensor, grid: tuple[int, int]) -> dict[str, Any]:
    return {"prefix": x.shape[1] - grid[0] * grid[1], "width": grid[1], "D": x.shape[2]}


def _int32(x: Tensor) -> Tensor:
    return x.to(torch.int32).contiguous()
