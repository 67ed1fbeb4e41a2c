"""From an encoded batch to each objective's loss; every text that looks at an image goes through one fused pass.

Aligned groups are those trained with ITC, ITM and MLM: all but MRC's.

Legend: G groups, M masked tokens, V words.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from relvlm.data.batches.batch import Batch, Section
from relvlm.losses.bbox import bbox_loss
from relvlm.losses.itm import IGNORED, itm_loss
from relvlm.losses.mlm import SoftWords, mlm_loss
from relvlm.losses.mrc import mrc_loss
from relvlm.pretraining.fused_pass import FusedPass, Seen, look
from relvlm.pretraining.negatives import (
    Features,
    Negatives,
    contrast,
    draw_negatives,
    group_keys,
    wrong_pairs,
)
from relvlm.pretraining.teacher import Teacher

if TYPE_CHECKING:
    from relvlm.config.schema import ModelConfig
    from relvlm.model import RelVLM
    from relvlm.pretraining.chunks import Part


class Outcome(NamedTuple):
    """Losses of a section, and other numbers worth logging."""

    losses: dict[str, Tensor]
    metrics: dict[str, Tensor]


Finish = Callable[
    [list[Tensor]], Outcome
]  # of what the fused pass read, by the numbers that `FusedPass.add` gave


class Texts(NamedTuple):
    """Packed texts to encode; among them the places of each group's text, and of an aligned one's with words masked."""

    ids: Tensor
    cu: Tensor
    of_group: Tensor
    masked: Tensor


class Lesson(NamedTuple):
    """The momentum teacher's features and fused rows of masked words (M, D) of a whole batch."""

    features: Features
    masked_MD: Tensor


class Encoded(NamedTuple):
    """A batch's images and packed texts (T, D), and the features of its aligned groups, if it has any."""

    seen: Seen
    texts: Texts
    text_TD: Tensor
    features: Features | None


class Asked(NamedTuple):
    """A batch on its way: encoded, with the fused pass that its sections put their questions to."""

    model: RelVLM
    batch: Batch
    texts: Texts
    features: Features | None
    lesson: Lesson | None
    step: FusedPass


def encode(model: RelVLM | Teacher, batch: Batch, config: ModelConfig) -> Encoded:
    """The images and texts of a batch by the encoders of the model or of its teacher."""
    seen = look(model.vision, batch, config.fusion.region_mask)
    texts = _texts(batch, config.savings.unique_texts)
    text_TD = model.text(texts.ids, texts.cu)
    features = _features(model, batch, seen, texts, text_TD) if batch.aligned else None
    return Encoded(seen, texts, text_TD, features)


def outcomes(
    model: RelVLM,
    batch: Batch,
    encoded: Encoded,
    negatives: Negatives | None = None,
    part: Part | None = None,
) -> tuple[list[Outcome], Tensor]:
    """Those of each section, and fused rows (n, D); all texts are fused in one pass.

    `negatives`, of a batch that is one section, are drawn where they are not given. A `part` of a step lacks ITC.
    """
    seen, texts, text_TD, features = encoded
    (lesson,) = teach(model, [batch]) if part is None else (part.lesson,)
    step = FusedPass(texts.cu, seen, model.config.savings)
    asked = Asked(model, batch, texts, features, lesson, step)
    finish = [relate(asked, s) if s.kind == "mrc" else align(asked, s, negatives) for s in batch.sections]
    read = step.run(model.fusion, text_TD)
    found = [section(read) for section in finish]
    if part is None and features is not None:
        itc = contrast(model, [batch], [features], [lesson.features] if lesson else [])
        for section, outcome in zip(batch.sections, found, strict=True):
            outcome.losses.update({"itc": itc[section.kind]} if section.kind in itc else {})
    return found, read[0]


def relate(asked: Asked, section: Section) -> Finish:
    """MRC: each entity's label with its visual context masked; then subject and object meet in the head."""
    model, batch = asked.model, asked.batch
    assert model.mrc_head is not None
    first, device = section.groups.start, batch.whole.device
    views = torch.arange(first, section.groups.stop, device=device)
    place = asked.step.add(asked.texts.of_group[section.groups], views)
    head = model.mrc_head

    def finish(read: list[Tensor]) -> Outcome:
        logits_RV = head(read[place], batch.subject - first, batch.object - first)
        losses = {"mrc": mrc_loss(logits_RV, batch.relation)}
        return Outcome(losses, {"mrc_accuracy": _accuracy(logits_RV, batch.relation)})

    return finish


def align(asked: Asked, section: Section, negatives: Negatives | None = None) -> Finish:
    """A = ITC + ITM + MLM of every group, and BBOX of those that have a box; `negatives` are drawn if not given."""
    model, batch, texts, whole_features, lesson, step = asked
    assert whole_features is not None
    features, first = whole_features.of(section), section.groups.start
    keys = group_keys(batch)[section.groups]
    drawn = negatives
    if drawn is None:
        taught = None if lesson is None else lesson.features.of(section)
        drawn = draw_negatives(model, features, wrong_pairs(model, keys, keys), taught)

    own = torch.arange(len(keys), device=keys.device)
    matched_texts = texts.of_group[section.groups][torch.cat([own, own, drawn.text_of_view])]
    matched = step.add(matched_texts, first + torch.cat([own, drawn.view_of_text, own]))
    rows_M = batch.mlm_row[section.masked] - batch.text_cu[first]
    masked = step.add(texts.masked[section.groups], first + own, rows_M)
    if section.kind == "entities":
        region = batch.region[section.regions]
        located = step.add(texts.of_group[region], len(batch.whole) + region)

    def finish(read: list[Tensor]) -> Outcome:
        logits_N2 = model.itm_head(read[matched])
        losses = {"itm": itm_loss(logits_N2, drawn.target)}
        soft = None if lesson is None else _soft_words(model, lesson.masked_MD[section.masked])
        losses["mlm"] = _words(model, read[masked], batch.mlm_label[section.masked], soft)
        if section.kind == "entities":
            boxes_R4 = model.predict_boxes(read[located][:, None])
            losses["bbox"] = bbox_loss(boxes_R4, batch.target_box[region])
        return Outcome(losses, {"itm_accuracy": _accuracy(logits_N2, drawn.target)})

    return finish


@torch.no_grad()
def teach(model: RelVLM, batches: list[Batch]) -> list[Lesson | None]:
    """Move the teacher, if any, towards the student and let it encode a step's batches (ALBEF, section 3.3)."""
    teacher = model.teacher
    if teacher is None or not batches[0].aligned:
        return [None] * len(batches)
    teacher.update(model)
    return [_lesson(teacher, batch, model.config) for batch in batches]


def _lesson(teacher: Teacher, batch: Batch, config: ModelConfig) -> Lesson:
    seen, texts, text_TD, features = encode(teacher, batch, config)
    assert features is not None
    step = FusedPass(texts.cu, seen, config.savings)
    views = torch.arange(batch.aligned, device=text_TD.device)
    step.add(texts.masked, views, batch.mlm_row, len(batch.mlm_ids))
    (masked_MD,) = step.run(teacher.fusion, text_TD)
    return Lesson(features, masked_MD)


def _soft_words(model: RelVLM, masked_MD: Tensor) -> SoftWords:
    assert model.teacher is not None
    return SoftWords(model.teacher.mlm_head, masked_MD, model.teacher.alpha)


def _features(model: RelVLM | Teacher, batch: Batch, seen: Seen, texts: Texts, text_TD: Tensor) -> Features:
    cls_GD = text_TD[texts.cu[texts.of_group[: batch.aligned]].long()]
    return Features(
        F.normalize(model.image_projection(seen.cls_GD[: batch.aligned]), dim=-1),
        F.normalize(model.text_projection(cls_GD), dim=-1),
    )


def _texts(batch: Batch, unique: bool) -> Texts:
    """Texts to encode, equal ones once if `unique`; then those with masked words, of the aligned groups."""
    ids, cu, aligned = batch.text_ids, batch.text_cu, batch.aligned
    of_group = torch.arange(len(batch.whole), device=ids.device)
    if unique and batch.distinct is not None:
        ids, cu, of_group = ids[batch.distinct.rows], batch.distinct.cu, batch.distinct.of_group
    masked = torch.arange(len(cu) - 1, len(cu) - 1 + aligned, device=ids.device)
    if aligned:
        masked_cu = batch.text_cu[1 : aligned + 1] + len(ids)
        ids, cu = torch.cat([ids, batch.mlm_ids]), torch.cat([cu, masked_cu])
    return Texts(ids, cu, of_group, masked)


def _words(model: RelVLM, masked_MD: Tensor, label_M: Tensor, soft: SoftWords | None = None) -> Tensor:
    if model.config.savings.chunked_words:
        return model.mlm_head.loss(masked_MD, label_M, soft)
    if soft is None:
        return mlm_loss(model.mlm_head(masked_MD), label_M)
    with torch.no_grad():
        soft_MV = soft.head(soft.rows_MD)
    return mlm_loss(model.mlm_head(masked_MD), label_M, soft_MV, soft.alpha)


def _accuracy(logits: Tensor, target: Tensor) -> Tensor:
    counted = target != IGNORED
    return ((logits.argmax(-1) == target) & counted).sum() / counted.sum().clamp(min=1)
