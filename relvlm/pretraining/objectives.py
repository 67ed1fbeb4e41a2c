"""The objectives that look at fused tokens: what each asks of the fused pass, what it makes of the rows that it reads.

Which kinds of batches train which is said in relvlm/kinds.py; a new objective is a loss in relvlm/losses, its row
in OBJECTIVES here, and its name there.

Legend: G groups of a section, M masked tokens, R triplets or boxes, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from relvlm.data.batches.batch import Batch, Section
from relvlm.losses.bbox import bbox_loss
from relvlm.losses.itm import IGNORED, itm_loss
from relvlm.losses.mlm import SoftWords, mlm_loss
from relvlm.losses.mrc import mrc_loss
from relvlm.model import RelVLM
from relvlm.pretraining.encode import EncodedTexts
from relvlm.pretraining.fused_pass import FusionQuery
from relvlm.pretraining.negatives import Negatives, counted_pairs, group_keys


@dataclass(frozen=True)
class SectionInput:
    """What the objectives of a section work on; `negatives` if it is aligned, `soft_words` if there is a teacher."""

    batch: Batch
    section: Section
    negatives: Negatives | None
    soft_words: SoftWords | None
    texts: EncodedTexts
    chunked_words: bool = True

    @property
    def first(self) -> int:
        """The section's first group in the batch."""
        return self.section.groups.start

    @property
    def own_G(self) -> Tensor:
        """The section's groups, counted from 0."""
        return torch.arange(self.section.groups.stop - self.first, device=self.texts.cu.device)


class ObjectiveValue(NamedTuple):
    """A loss, with gradient; of a classification also how often it is right."""

    loss: Tensor
    accuracy: Tensor | None = None


@dataclass(frozen=True)
class Objective:
    """`query` asks, `value` takes the rows (n, D) that were read; its loss is a mean over what is `counted`.

    `counted` takes the rule of ModelConfig.negatives too. `unused` gives the parameters of its own a gradient where a
    batch does not train them: ZeRO needs one for each, on every rank. It returns what to sum, of one fused row (1, D),
    and None where the model has no such parameters.
    """

    query: Callable[[SectionInput], FusionQuery]
    value: Callable[[RelVLM, SectionInput, Tensor], ObjectiveValue]
    counted: Callable[[Batch, Section, str], int | Tensor]
    unused: Callable[[RelVLM, Tensor], Tensor | None]


# ---- ITM: does this text say what this view shows? -------------------------------------------------------


def itm_query(x: SectionInput) -> FusionQuery:
    """Each text at its own view, at a negative one, and a negative text at each view."""
    assert x.negatives is not None
    own, of_group = x.own_G, x.texts.of_group[x.section.groups]
    texts = of_group[torch.cat([own, own, x.negatives.text_of_view])]
    return FusionQuery(texts, x.first + torch.cat([own, x.negatives.view_of_text, own]))


def itm_value(model: RelVLM, x: SectionInput, cls_ND: Tensor) -> ObjectiveValue:
    assert x.negatives is not None
    logits_N2, target = model.itm_head(cls_ND), x.negatives.target
    return ObjectiveValue(itm_loss(logits_N2, target), _accuracy(logits_N2, target))


def itm_counted(batch: Batch, section: Section, rule: str) -> Tensor:
    """Pairs of a text and a view."""
    return counted_pairs(group_keys(batch)[section.groups], rule)


def itm_unused(model: RelVLM, row_1D: Tensor) -> Tensor:
    return model.itm_head(row_1D)


# ---- MLM: which words are masked? ------------------------------------------------------------------------


def mlm_query(x: SectionInput) -> FusionQuery:
    """Each text with words masked at its own view; the masked tokens are read."""
    rows_M = x.batch.mlm_row[x.section.masked] - x.batch.regions.offsets[x.first]
    return FusionQuery(x.texts.masked[x.section.groups], x.first + x.own_G, rows_M)


def mlm_value(model: RelVLM, x: SectionInput, masked_MD: Tensor) -> ObjectiveValue:
    label_M, soft = x.batch.mlm_label[x.section.masked], x.soft_words
    if x.chunked_words:
        return ObjectiveValue(model.mlm_head.loss(masked_MD, label_M, soft))
    if soft is None:
        return ObjectiveValue(mlm_loss(model.mlm_head(masked_MD), label_M))
    with torch.no_grad():
        soft_MV = soft.head(soft.rows_MD)
    return ObjectiveValue(mlm_loss(model.mlm_head(masked_MD), label_M, soft_MV, soft.alpha))


def mlm_counted(batch: Batch, section: Section, rule: str) -> int:
    """Masked words."""
    return section.masked.stop - section.masked.start


def mlm_unused(model: RelVLM, row_1D: Tensor) -> Tensor:
    return model.mlm_head.loss(row_1D[:0], torch.zeros(0, dtype=torch.long, device=row_1D.device))


# ---- BBOX: where is what this label names? (X-VLM, section 3.3) ------------------------------------------


def bbox_query(x: SectionInput) -> FusionQuery:
    """The texts of boxes at the *whole* image, which is the second half of the views."""
    region = x.batch.region[x.section.regions]
    return FusionQuery(x.texts.of_group[region], x.batch.groups + region)


def bbox_value(model: RelVLM, x: SectionInput, cls_RD: Tensor) -> ObjectiveValue:
    region = x.batch.region[x.section.regions]
    return ObjectiveValue(bbox_loss(model.predict_boxes(cls_RD[:, None]), x.batch.target_box[region]))


def bbox_counted(batch: Batch, section: Section, rule: str) -> int:
    """Boxes."""
    return section.regions.stop - section.regions.start


def bbox_unused(model: RelVLM, row_1D: Tensor) -> Tensor | None:
    return None if model.box_head is None else model.box_head(row_1D)


# ---- MRC: how do subject and object relate? (paper, section 2.2) -----------------------------------------


def mrc_query(x: SectionInput) -> FusionQuery:
    """Each entity's label with its visual context masked."""
    return FusionQuery(x.texts.of_group[x.section.groups], x.first + x.own_G)


def mrc_value(model: RelVLM, x: SectionInput, cls_ED: Tensor) -> ObjectiveValue:
    assert model.mrc_head is not None
    logits_RV = model.mrc_head(cls_ED, x.batch.subject - x.first, x.batch.object - x.first)
    return ObjectiveValue(mrc_loss(logits_RV, x.batch.relation), _accuracy(logits_RV, x.batch.relation))


def mrc_counted(batch: Batch, section: Section, rule: str) -> int:
    """Triplets."""
    return len(batch.relation)


def mrc_unused(model: RelVLM, row_1D: Tensor) -> Tensor | None:
    first = torch.zeros(1, dtype=torch.long, device=row_1D.device)
    return None if model.mrc_head is None else model.mrc_head(row_1D, first, first)


OBJECTIVES = {
    "itm": Objective(itm_query, itm_value, itm_counted, itm_unused),
    "mlm": Objective(mlm_query, mlm_value, mlm_counted, mlm_unused),
    "bbox": Objective(bbox_query, bbox_value, bbox_counted, bbox_unused),
    "mrc": Objective(mrc_query, mrc_value, mrc_counted, mrc_unused),
}


def _accuracy(logits: Tensor, target: Tensor) -> Tensor:
    counted = target != IGNORED
    return ((logits.argmax(-1) == target) & counted).sum() / counted.sum().clamp(min=1)
