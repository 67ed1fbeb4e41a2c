"""The one shape of batch that all four kinds share: G groups, each a text that looks at an image (or a box of it).

Legend: B images, G groups, T packed text tokens, M masked tokens, R triplets.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Literal

import torch
from torch import Tensor

BatchKind = Literal["captions", "entities", "mrc", "vsg"]
BATCH_KINDS: tuple[BatchKind, ...] = ("captions", "entities", "mrc", "vsg")


@dataclass(frozen=True)
class Batch:
    """One step's input on one rank, from one dataset.

    `captions` and `vsg`: G = B whole-image groups. `entities`: regions and, where captions exist, the whole
    image. `mrc`: one group per entity that a triplet names; no masked tokens.
    """

    kind: BatchKind
    dataset: str
    pixels: Tensor  # (B, 3, H, W) float32
    image_key: Tensor  # (B,) int64, equal for equal images
    text_ids: Tensor  # (T,) int64: [CLS] ... [SEP] of group 0, then of group 1, ...
    text_cu: Tensor  # (G + 1,) int32 offsets into T
    text_key: Tensor  # (G,) int64, equal for equal texts
    image_index: Tensor  # (G,) int32, row of `pixels`
    box: Tensor  # (G, 4) int32, patches (x0, y0, x1, y1), half-open
    whole: Tensor  # (G,) bool: the group sees the whole image
    target_box: Tensor  # (G, 4) float32 (cx, cy, w, h) in [0, 1]; of no meaning where `whole`
    mlm_ids: Tensor  # (T,) int64, `text_ids` after masking
    mlm_row: Tensor  # (M,) int64, rows of T to predict
    mlm_label: Tensor  # (M,) int64
    subject: Tensor  # (R,) int64, groups
    object: Tensor  # (R,) int64, groups
    relation: Tensor  # (R,) int64, relation classes

    def to(self, device: torch.device | str) -> Batch:
        """The batch with every tensor on `device`."""
        moved = {
            f.name: getattr(self, f.name).to(device, non_blocking=True)
            for f in fields(self)
            if isinstance(getattr(self, f.name), Tensor)
        }
        return replace(self, **moved)

    @property
    def images(self) -> int:
        """Number of images B."""
        return self.pixels.shape[0]
