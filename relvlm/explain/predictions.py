"""Boxes that the model predicts for a text, and regions of the image for a pair of boxes.

A box is (x0, y0, x1, y1) in [0, 1] of the photo's width and height.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from relvlm.data.batches.regions import box_to_patches
from relvlm.explain.reading import encode
from relvlm.model import RelVLM
from relvlm_kernels.regions import box_mask

UnitBox = tuple[float, float, float, float]
LEAST = 1e-3  # the side of a box that the head has collapsed


@torch.no_grad()
def predicted_boxes(model: RelVLM, tokens_SD: Tensor, texts: Sequence[str]) -> list[UnitBox]:
    """Where in the whole image each text is; ValueError for a model without box head."""
    text_tokens, mask = encode(model, texts)
    fused = model.fuse(text_tokens, mask, tokens_SD.expand(len(texts), -1, -1))
    return [_corners(*row) for row in model.predict_boxes(fused).tolist()]


@torch.no_grad()
def relation_shares(model: RelVLM, pixels_CHW: Tensor, labels: Sequence[str], boxes: Sequence[UnitBox]) -> Tensor:
    """(V,) probability of each relation of the first entity to the second, each seen within its box alone (MRC).

    ValueError for a model without relation head.
    """
    seen = _masks(model, boxes)
    regions = model.encode_regions(pixels_CHW[None], torch.zeros(len(boxes), dtype=torch.long), seen)
    text_tokens, mask = encode(model, labels)
    subject, target = model.fuse(text_tokens, mask, regions, seen)
    return model.relation_logits(subject[None], target[None]).softmax(-1)[0]


def _masks(model: RelVLM, boxes: Sequence[UnitBox]) -> Tensor:
    """(R, 1 + N): the patches that each box touches, and a first token, which stands for them."""
    size, stride = model.config.image_size, model.vision.stride
    scaled = [(x0 * size, y0 * size, x1 * size, y1 * size) for x0, y0, x1, y1 in boxes]
    patches = torch.tensor([box_to_patches(box, size, stride) for box in scaled])
    inside = box_mask(patches, model.vision.grid)
    return torch.cat([torch.ones_like(inside[:, :1]), inside], dim=1)


def _corners(cx: float, cy: float, w: float, h: float) -> UnitBox:
    """Clipped to the image, and never empty."""
    x0, y0 = min(max(cx - w / 2, 0.0), 1 - LEAST), min(max(cy - h / 2, 0.0), 1 - LEAST)
    return (x0, y0, max(min(cx + w / 2, 1.0), x0 + LEAST), max(min(cy + h / 2, 1.0), y0 + LEAST))
