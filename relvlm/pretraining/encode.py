"""A batch's images, texts and features: each image and each text once, by the model or by its momentum teacher.

Legend: B images, S image tokens, G groups, G' aligned groups (all but MRC's), T packed tokens, K packed image tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from relvlm.data.batches.batch import Batch, Section
from relvlm.encoders.text import TextEncoder
from relvlm.encoders.vision import VisionEncoder
from relvlm_kernels import Regions, box_mean


class Encoders(Protocol):
    """What of a model, or of its teacher, encodes."""

    vision: VisionEncoder
    text: TextEncoder
    image_projection: nn.Linear
    text_projection: nn.Linear


@dataclass(frozen=True)
class EncodedViews:
    """Encoded images with 2 G views of them: what each group sees (its box), then the whole image of each group.

    Either `tokens` are (B, S, D) and `views` boxes of them (offsets unset), or tokens are packed, (K, D), and view v
    is their sequence `views[v]`. An `mrc` batch looks at no whole image: its second G views are not to be used.
    """

    tokens: Tensor
    views: Regions | Tensor
    key_cu: Tensor | None
    cls_GD: Tensor  # what stands for each group's view in ITC


class EncodedTexts(NamedTuple):
    """Packed texts (T, D) and their offsets; among them the places of each group's, and of each with words masked."""

    tokens_TD: Tensor
    cu: Tensor
    of_group: Tensor
    masked: Tensor


class Features(NamedTuple):
    """Of the aligned groups (G', E), L2-normalised: what they see, and their texts."""

    image_GE: Tensor
    text_GE: Tensor

    def of(self, section: Section) -> Features:
        """Those of one section's groups."""
        return Features(self.image_GE[section.groups], self.text_GE[section.groups])


class EncodedBatch(NamedTuple):
    """Views and texts; features of the aligned groups, None where a batch has none."""

    views: EncodedViews
    texts: EncodedTexts
    features: Features | None


def encode(encoders: Encoders, batch: Batch, region_mask: str, unique_texts: bool = True) -> EncodedBatch:
    """Encode a batch; `region_mask` is that of FusionConfig, `unique_texts` encodes equal texts once."""
    views = encode_images(encoders.vision, batch, region_mask)
    texts = encode_texts(encoders.text, batch, unique_texts)
    features = _features(encoders, batch, views, texts) if batch.aligned else None
    return EncodedBatch(views, texts, features)


def _features(encoders: Encoders, batch: Batch, views: EncodedViews, texts: EncodedTexts) -> Features:
    cls_GD = texts.tokens_TD[texts.cu[texts.of_group[: batch.aligned]].long()]
    return Features(
        F.normalize(encoders.image_projection(views.cls_GD[: batch.aligned]), dim=-1),
        F.normalize(encoders.text_projection(cls_GD), dim=-1),
    )


# ---- texts -----------------------------------------------------------------------------------------------


def encode_texts(text: TextEncoder, batch: Batch, unique: bool) -> EncodedTexts:
    """The texts, equal ones once if `unique`; then those with masked words, of the aligned groups."""
    ids, cu, aligned = batch.text_ids, batch.regions.offsets, batch.aligned
    of_group = torch.arange(batch.groups, device=ids.device)
    if unique and batch.distinct is not None:
        ids, cu, of_group = ids[batch.distinct.rows], batch.distinct.cu, batch.distinct.of_group
    masked = torch.arange(len(cu) - 1, len(cu) - 1 + aligned, device=ids.device)
    if aligned:
        masked_cu = batch.regions.offsets[1 : aligned + 1] + len(ids)
        ids, cu = torch.cat([ids, batch.mlm_ids]), torch.cat([cu, masked_cu])
    return EncodedTexts(text(ids, cu), cu, of_group, masked)


# ---- images ----------------------------------------------------------------------------------------------


def encode_images(vision: VisionEncoder, batch: Batch, region_mask: str) -> EncodedViews:
    """The images, and what each group sees of them."""
    if region_mask == "late_vision" and batch.boxed:
        return _late_views(vision, batch)
    kept_BK = None if batch.boxed else vision.draw_patches(batch.pixels)
    image_BSD = vision(batch.pixels, kept_BK)
    if kept_BK is not None:
        return _kept_views(image_BSD, batch.regions)
    own = batch.regions
    whole_GD = image_BSD[own.image.long(), 0]
    region_GD = box_mean(image_BSD, own.box, own.image, own.grid)
    cls_GD = torch.where(batch.whole[:, None], whole_GD, region_GD)
    return EncodedViews(image_BSD, _own_and_whole(own), None, cls_GD)


def _own_and_whole(own: Regions) -> Regions:
    whole = Regions.whole(own.offsets, own.image, own.grid)
    return Regions(
        offsets=own.offsets,
        image=torch.cat([own.image, whole.image]),
        box=torch.cat([own.box, whole.box]),
        prefix=torch.cat([own.prefix, whole.prefix]),
        mean=torch.cat([own.mean, whole.mean]),
        grid=own.grid,
    )


def _kept_views(image_BSD: Tensor, own: Regions) -> EncodedViews:
    """Whole images of which some patches are left: one row of them."""
    whole = Regions.whole(own.offsets, own.image, (1, image_BSD.shape[1] - 1))
    image_G = own.image.long()
    twice = torch.arange(len(image_G), device=image_G.device).repeat(2)
    return EncodedViews(image_BSD, whole.pick(twice, own.offsets), None, image_BSD[image_G, 0])


def _late_views(vision: VisionEncoder, batch: Batch) -> EncodedViews:
    """A region shows its own [CLS] and patches, masked in the last vision blocks (X-VLM with ViT)."""
    own, region, images = batch.regions, batch.region, batch.aligned > 0
    tokens_KD, key_cu = vision.late_regions(
        batch.pixels, own.image[region], own.box[region], images, batch.region_patches
    )
    image_G = own.image.long()
    first = len(batch.pixels) if images else 0
    own_G = image_G.index_copy(0, region, first + torch.arange(len(region), device=region.device))
    return EncodedViews(tokens_KD, torch.cat([own_G, image_G]), key_cu, tokens_KD[key_cu.long()[own_G]])
