"""Boxes that a model predicts for texts, and how far boxes overlap.

Legend: G pairs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from relvlm.errors import UserError
from relvlm.evals.scoring.scorer import Picture, Scorer, distinct
from relvlm.losses.bbox import corners, iou


def predicted_boxes(scorer: Scorer, images: Sequence[Picture], texts: Sequence[str]) -> Tensor:
    """(G, 4) corners x0, y0, x1, y1 of what texts[g] means in images[g], as shares of width and height.

    Raises UserError for a model without a box head, and for a box that is not finite.
    """
    if scorer.matcher.boxes is None:
        raise UserError("model: no box head (give one that was trained with model.localisation)")
    names, image = distinct(images)
    said, text = distinct(texts)
    centred_G4 = scorer.of_pairs(scorer.matcher.boxes, names, said, image, text)
    if not bool(torch.isfinite(centred_G4).all()):
        raise UserError("boxes: not finite (has the model diverged? take an earlier checkpoint)")
    return corners(centred_G4.double())


def overlaps(first: Sequence[Sequence[float]], second: Sequence[Sequence[float]]) -> list[float]:
    """Intersection over union of each two boxes (x0, y0, x1, y1)."""
    return iou(*(torch.tensor(boxes, dtype=torch.float64).view(-1, 4) for boxes in (first, second)))[0].tolist()
