"""From an encoded batch to each objective's loss; every text that looks at an image goes through one fused pass.

Legend: G groups, A groups of all ranks, K key numbers, E embedding width, M masked tokens, V words.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from relvlm.data.batch import Batch
from relvlm.fused_pass import FusedPass, Seen, look
from relvlm.losses.bbox import bbox_loss
from relvlm.losses.itc import itc_loss
from relvlm.losses.itm import IGNORED, hard_negatives, itm_loss
from relvlm.losses.mlm import SoftWords, mlm_loss
from relvlm.losses.mrc import mrc_loss
from relvlm.momentum import Keys, Teacher

if TYPE_CHECKING:
    from relvlm.model import RelVLM


class Outcome(NamedTuple):
    """Losses, other numbers worth logging, and fused rows (n, D) that heads without work may take one of."""

    losses: dict[str, Tensor]
    metrics: dict[str, Tensor]
    fused_ND: Tensor


class Negatives(NamedTuple):
    """A view for each text and a text for each view, (G,); ITM's target (3 G,) of matches, then of these pairs."""

    view_of_text: Tensor
    text_of_view: Tensor
    target: Tensor

    @classmethod
    def given(cls, view_of_text: Tensor, text_of_view: Tensor) -> Negatives:
        """Negatives drawn elsewhere: each pair counts."""
        ones, zeros = torch.ones_like(view_of_text), torch.zeros_like(view_of_text)
        return cls(view_of_text, text_of_view, torch.cat([ones, zeros, zeros]))


class Texts(NamedTuple):
    """Packed texts to encode; for each group, the places of its text and of the one with words masked among them."""

    ids: Tensor
    cu: Tensor
    of_group: Tensor
    masked: Tensor


class Taught(NamedTuple):
    """What the momentum teacher says of a batch."""

    keys: Keys
    image_GE: Tensor
    text_GE: Tensor
    words: SoftWords


def relate(model: RelVLM, batch: Batch, seen: Seen) -> Outcome:
    """MRC: each entity's label with its visual context masked; then subject and object meet in the head."""
    assert model.mrc_head is not None
    texts = _texts(batch, model.config.savings.unique_texts)
    text_TD = model.text(texts.ids, texts.cu)
    step = FusedPass(texts.cu, seen, model.config.savings)
    step.add(texts.of_group, torch.arange(len(batch.whole), device=text_TD.device))
    (entity_ED,) = step.run(model.fusion, text_TD)
    logits_RV = model.mrc_head(entity_ED, batch.subject, batch.object)
    losses = {"mrc": mrc_loss(logits_RV, batch.relation)}
    return Outcome(losses, {"mrc_accuracy": _accuracy(logits_RV, batch.relation)}, entity_ED)


def align(model: RelVLM, batch: Batch, seen: Seen, negatives: Negatives | None = None) -> Outcome:
    """A = ITC + ITM + MLM of every group, and BBOX of those that have a box; `negatives` are drawn if not given."""
    texts = _texts(batch, model.config.savings.unique_texts)
    text_TD = model.text(texts.ids, texts.cu)
    image_GE = F.normalize(model.image_projection(seen.cls_GD), dim=-1)
    text_GE = model.text_features(text_TD[texts.cu[texts.of_group].long()])
    keys = group_keys(batch)
    wrong_GG = _wrong(model, keys, keys)
    taught = None if model.teacher is None else teach(model, model.teacher, batch, wrong_GG)
    if negatives is None:
        negatives = _draw(model, image_GE, text_GE, wrong_GG, taught)

    groups = torch.arange(len(keys), device=text_TD.device)
    regions = (~batch.whole).nonzero().squeeze(1)
    step = FusedPass(texts.cu, seen, model.config.savings)
    matched = texts.of_group[torch.cat([groups, groups, negatives.text_of_view])]
    step.add(matched, torch.cat([groups, negatives.view_of_text, groups]))
    step.add(texts.masked, groups, batch.mlm_row)
    if batch.kind == "entities":
        step.add(texts.of_group[regions], len(groups) + regions)
    matched_ND, masked_MD, *located = step.run(model.fusion, text_TD)

    logits_N2 = model.itm_head(matched_ND)
    losses = {"itm": itm_loss(logits_N2, negatives.target)}
    if taught is None:
        losses["itc"] = _contrast(model, keys, image_GE, text_GE)
        losses["mlm"] = _words(model, masked_MD, batch.mlm_label)
    else:
        losses |= _distil(model, batch, image_GE, text_GE, masked_MD, taught)
    for cls_ND in located:
        losses["bbox"] = bbox_loss(model.predict_boxes(cls_ND[:, None]), batch.target_box[regions])
    return Outcome(losses, {"itm_accuracy": _accuracy(logits_N2, negatives.target)}, matched_ND)


@torch.no_grad()
def teach(model: RelVLM, teacher: Teacher, batch: Batch, wrong_GG: Tensor) -> Taught:
    """Move the teacher towards the student and let it encode the batch (ALBEF, section 3.3)."""
    teacher.update(model)
    seen = look(teacher.vision, batch, model.config.fusion.region_mask)
    texts = _texts(batch, model.config.savings.unique_texts)
    text_TD = teacher.text(texts.ids, texts.cu)
    image_GE = F.normalize(teacher.image_projection(seen.cls_GD), dim=-1)
    text_GE = F.normalize(teacher.text_projection(text_TD[texts.cu[texts.of_group].long()]), dim=-1)
    step = FusedPass(texts.cu, seen, model.config.savings)
    step.add(texts.masked, torch.arange(len(wrong_GG), device=text_TD.device), batch.mlm_row)
    (masked_MD,) = step.run(teacher.fusion, text_TD)
    keys = teacher.keys(image_GE, text_GE, model.temperature, wrong_GG)
    return Taught(keys, image_GE, text_GE, SoftWords(teacher.mlm_head, masked_MD, teacher.alpha))


def _texts(batch: Batch, unique: bool) -> Texts:
    """Texts to encode, equal ones once if `unique`; an MRC batch has none with masked words."""
    ids, cu, groups = batch.text_ids, batch.text_cu, len(batch.whole)
    of_group = torch.arange(groups, device=ids.device)
    if unique and batch.distinct is not None:
        ids, cu, of_group = ids[batch.distinct.rows], batch.distinct.cu, batch.distinct.of_group
    masked = torch.arange(len(cu) - 1, len(cu) - 1 + groups, device=ids.device)
    if batch.kind != "mrc":
        ids, cu = torch.cat([ids, batch.mlm_ids]), torch.cat([cu, batch.text_cu[1:] + len(ids)])
    return Texts(ids, cu, of_group, masked)


def _words(model: RelVLM, masked_MD: Tensor, label_M: Tensor, soft: SoftWords | None = None) -> Tensor:
    if model.config.savings.chunked_words:
        return model.mlm_head.loss(masked_MD, label_M, soft)
    if soft is None:
        return mlm_loss(model.mlm_head(masked_MD), label_M)
    with torch.no_grad():
        soft_MV = soft.head(soft.rows_MD)
    return mlm_loss(model.mlm_head(masked_MD), label_M, soft_MV, soft.alpha)


def _contrast(model: RelVLM, keys_GK: Tensor, image_GE: Tensor, text_GE: Tensor) -> Tensor:
    """ITC over the groups of all ranks."""
    (image_AE, first), (text_AE, _) = model.gather(image_GE), model.gather(text_GE)
    keys_AK = model.gather(keys_GK)[0]
    if model.config.itc_gradient == "own_rank":  # X-VLM: the loss of all rows, through the own ones alone
        image_GE = image_AE = _own_alone(image_AE, image_GE, first)
        text_GE = text_AE = _own_alone(text_AE, text_GE, first)
        keys_GK, first = keys_AK, 0
    wrong_i2t, wrong_t2i = _wrong(model, keys_AK, keys_GK).T, _wrong(model, keys_GK, keys_AK)
    return itc_loss(image_GE, text_GE, image_AE, text_AE, model.temperature, first, wrong_i2t, wrong_t2i)


def _own_alone(all_AE: Tensor, own_GE: Tensor, first: int) -> Tensor:
    before, after = all_AE[:first].detach(), all_AE[first + len(own_GE) :].detach()
    return torch.cat([before, own_GE, after])


def _distil(
    model: RelVLM, batch: Batch, image_GE: Tensor, text_GE: Tensor, masked_MD: Tensor, taught: Taught
) -> dict[str, Tensor]:
    """ITC against the queues and MLM, both with the momentum teacher's soft targets (ALBEF, section 3.3)."""
    teacher, keys = model.teacher, taught.keys
    assert teacher is not None
    itc = itc_loss(
        image_GE, text_GE, keys.images, keys.texts, model.temperature, 0,
        keys.wrong_i2t, keys.wrong_t2i, keys.soft_i2t, keys.soft_t2i,
    )  # fmt: skip
    teacher.enqueue(model.gather(taught.image_GE)[0], model.gather(taught.text_GE)[0])
    return {"itc": itc, "mlm": _words(model, masked_MD, batch.mlm_label, taught.words)}


def _draw(
    model: RelVLM, image_GE: Tensor, text_GE: Tensor, wrong_GG: Tensor, taught: Taught | None
) -> Negatives:
    """Hard negatives of the local batch, by its similarities: to the teacher's features where there is one (ALBEF)."""
    t2i, i2t = similarities(image_GE, text_GE, model.temperature, taught)
    itself = torch.eye(len(wrong_GG), dtype=torch.bool, device=wrong_GG.device)
    view_of_text, has_view = hard_negatives(t2i, wrong_GG | itself, model.config.itm_floor)
    text_of_view, has_text = hard_negatives(i2t, wrong_GG.T | itself, model.config.itm_floor)
    negative = torch.where(torch.cat([has_view, has_text]), 0, IGNORED)
    return Negatives(view_of_text, text_of_view, torch.cat([torch.ones_like(view_of_text), negative]))


@torch.no_grad()
def similarities(
    image_GE: Tensor, text_GE: Tensor, temperature: Tensor, taught: Taught | None = None
) -> tuple[Tensor, Tensor]:
    """(G, G) text to view and view to text, over the temperature."""
    image_keys_GE, text_keys_GE = (image_GE, text_GE) if taught is None else (taught.image_GE, taught.text_GE)
    return text_GE @ image_keys_GE.T / temperature, image_GE @ text_keys_GE.T / temperature


def group_keys(batch: Batch) -> Tensor:
    """(G, 3) int64: text, image and whole-image flag of each group, for `false_negatives`."""
    image_key = batch.image_key[batch.image_index.long()]
    return torch.stack([batch.text_key, image_key, batch.whole.long()], dim=1)


def false_negatives(texts_XK: Tensor, views_YK: Tensor) -> Tensor:
    """(X, Y) bool: text x is as true of view y as its own. Keys are those of `group_keys`.

    True for the same text, and for a whole image under any text of that same image.
    """
    same_text = texts_XK[:, None, 0] == views_YK[None, :, 0]
    same_image = texts_XK[:, None, 1] == views_YK[None, :, 1]
    return same_text | (same_image & views_YK[None, :, 2].bool())


def _wrong(model: RelVLM, texts_XK: Tensor, views_YK: Tensor) -> Tensor:
    """(X, Y) bool: pairs that are no negatives. The official codes know of none but the pair itself."""
    if model.config.negatives == "official":
        return torch.zeros(len(texts_XK), len(views_YK), dtype=torch.bool, device=texts_XK.device)
    return false_negatives(texts_XK, views_YK)


def _accuracy(logits: Tensor, target: Tensor) -> Tensor:
    counted = target != IGNORED
    return ((logits.argmax(-1) == target) & counted).sum() / counted.sum().clamp(min=1)
