"""Reference vectors of the official models as our batches (what each field is: the README beside the vectors)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from relvlm.data.batches.batch import Batch
from relvlm.encoders.packing import offsets_of
from relvlm_kernels import Regions

IGNORED = -100


def albef_batch(inputs: dict[str, Tensor], grid: tuple[int, int]) -> Batch:
    """ALBEF's image-text batch."""
    labels = inputs["mlm_labels"]
    return _batch(
        "captions", inputs["images"], inputs["input_ids"], inputs["attention_mask"],
        inputs["mlm_input_ids"], labels != IGNORED, torch.arange(len(labels)), grid,
    )  # fmt: skip


def xvlm_batch(inputs: dict[str, Tensor], grid: tuple[int, int]) -> Batch:
    """X-VLM's image-text or region batch."""
    ids, positions = inputs["text_ids"], inputs["masked_pos"]
    masked = torch.zeros_like(ids, dtype=torch.bool)
    counted = inputs["masked_ids"] != IGNORED
    masked[counted.nonzero()[:, 0], positions[counted]] = True
    image = inputs.get("idx_to_group_img", torch.arange(len(ids)))
    kind = "entities" if "idx_to_group_img" in inputs else "captions"
    batch = _batch(kind, inputs["images"], ids, inputs["text_atts"], inputs["text_ids_masked"], masked, image, grid)
    if kind == "captions":
        return batch
    every = batch.regions
    box = Regions.from_mask(every.offsets, every.image, inputs["image_atts"].bool(), grid).box
    whole, target = inputs["is_image"].bool(), inputs["target_bbox"]
    seen = Regions(every.offsets, every.image, box, whole, ~whole, grid)
    return replace(batch, regions=seen, region=(~whole).nonzero().squeeze(1), target_box=target)


def _batch(
    kind: Any, pixels: Tensor, ids_BL: Tensor, mask_BL: Tensor, masked_ids_BL: Tensor, masked_BL: Tensor,
    image: Tensor, grid: tuple[int, int],
) -> Batch:  # fmt: skip
    """Packed texts about whole images; every text and image counts as different from the others."""
    real = mask_BL.bool()
    groups = len(ids_BL)
    none = torch.zeros(0, dtype=torch.long)
    return Batch(
        kind=kind, dataset="vectors", pixels=pixels, image_key=torch.arange(len(pixels)),
        text_ids=ids_BL[real], text_key=torch.arange(groups), region=none, target_box=torch.zeros(groups, 4),
        regions=Regions.whole(offsets_of(real.sum(1)), image.to(torch.int32), grid),
        mlm_ids=masked_ids_BL[real], mlm_row=masked_BL[real].nonzero().squeeze(1), mlm_label=ids_BL[masked_BL],
        subject=none, object=none, relation=none,
    )  # fmt: skip
