"""Which texts and views of a step belong together: ITC over all of them, and ITM's hard negatives.

Legend: G groups, A groups of all ranks, K key numbers, E embedding width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from relvlm.data.batches.batch import Batch, Section
from relvlm.losses.itc import itc_loss
from relvlm.losses.itm import IGNORED, hard_negatives

if TYPE_CHECKING:
    from relvlm.model import RelVLM


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


class Features(NamedTuple):
    """Of the aligned groups (G', E), L2-normalised: what they see, and their texts."""

    image_GE: Tensor
    text_GE: Tensor

    def of(self, section: Section) -> Features:
        return Features(self.image_GE[section.groups], self.text_GE[section.groups])

    @classmethod
    def joined(cls, features: list[Features], sections: list[Section]) -> Features:
        """One section's, of all batches of a step."""
        parts = [f.of(section) for f, section in zip(features, sections, strict=True)]
        return cls(*(torch.cat(x) for x in zip(*parts, strict=True)))


def contrast(
    model: RelVLM, batches: list[Batch], features: list[Features], taught: list[Features]
) -> dict[str, Tensor]:
    """ITC of each aligned section, over its groups in all of a step's batches and on all ranks.

    `taught`: the momentum teacher's features, which then go into its queues; empty without one.
    """
    losses: dict[str, Tensor] = {}
    for place, section in enumerate(batches[0].sections):
        if section.kind != "mrc":
            sections = [batch.sections[place] for batch in batches]
            keys = [group_keys(batch)[s.groups] for batch, s in zip(batches, sections, strict=True)]
            own = Features.joined(features, sections)
            by_teacher = Features.joined(taught, sections) if taught else None
            losses[section.kind] = contrast_groups(model, torch.cat(keys), own, by_teacher)
    if model.teacher is not None and taught:
        model.teacher.enqueue(*model.gather(*(torch.cat(x) for x in zip(*taught, strict=True)))[:2])
    return losses


def contrast_groups(
    model: RelVLM, keys_GK: Tensor, features: Features, taught: Features | None = None
) -> Tensor:
    """ITC over the groups of all ranks; with a teacher, against its queues and soft targets (ALBEF, section 3.3)."""
    image_GE, text_GE = features
    if taught is not None:
        assert model.teacher is not None
        keys = model.teacher.keys(*taught, model.temperature, wrong_pairs(model, keys_GK, keys_GK))
        return itc_loss(
            image_GE, text_GE, keys.images, keys.texts, model.temperature, 0,
            keys.wrong_i2t, keys.wrong_t2i, keys.soft_i2t, keys.soft_t2i,
        )  # fmt: skip
    image_AE, text_AE, keys_AK, first = model.gather(image_GE, text_GE, keys_GK)
    if model.config.itc_gradient == "own_rank":  # X-VLM: the loss of all rows, through the own ones alone
        image_GE = image_AE = _own_alone(image_AE, image_GE, first)
        text_GE = text_AE = _own_alone(text_AE, text_GE, first)
        keys_GK, first = keys_AK, 0
    wrong_i2t, wrong_t2i = wrong_pairs(model, keys_AK, keys_GK).T, wrong_pairs(model, keys_GK, keys_AK)
    return itc_loss(image_GE, text_GE, image_AE, text_AE, model.temperature, first, wrong_i2t, wrong_t2i)


def _own_alone(all_AE: Tensor, own_GE: Tensor, first: int) -> Tensor:
    before, after = all_AE[:first].detach(), all_AE[first + len(own_GE) :].detach()
    return torch.cat([before, own_GE, after])


def draw_negatives(model: RelVLM, features: Features, wrong_GG: Tensor, taught: Features | None) -> Negatives:
    """Hard negatives of the local batch, by its similarities: to the teacher's features where there is one (ALBEF)."""
    t2i, i2t = similarities(features, model.temperature, taught or features)
    excluded_GG = _excluded(wrong_GG)
    view_of_text, has_view = hard_negatives(t2i, excluded_GG, model.config.itm_floor)
    text_of_view, has_text = hard_negatives(i2t, excluded_GG.T, model.config.itm_floor)
    negative = torch.where(torch.cat([has_view, has_text]), 0, IGNORED)
    return Negatives(view_of_text, text_of_view, torch.cat([torch.ones_like(view_of_text), negative]))


def counted_pairs(model: RelVLM, keys_GK: Tensor) -> Tensor:
    """How many pairs ITM counts of such groups: each with itself, and each text and each view that has a negative."""
    possible_GG = ~_excluded(wrong_pairs(model, keys_GK, keys_GK))
    return len(keys_GK) + possible_GG.any(0).sum() + possible_GG.any(1).sum()


def _excluded(wrong_GG: Tensor) -> Tensor:
    """What no negative is drawn from: `wrong_GG` and the groups themselves."""
    return wrong_GG | torch.eye(len(wrong_GG), dtype=torch.bool, device=wrong_GG.device)


@torch.no_grad()
def similarities(features: Features, temperature: Tensor, keys: Features) -> tuple[Tensor, Tensor]:
    """(G, G) text to view and view to text, over the temperature."""
    t2i_GG, i2t_GG = features.text_GE @ keys.image_GE.T, features.image_GE @ keys.text_GE.T
    return t2i_GG / temperature, i2t_GG / temperature


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


def wrong_pairs(model: RelVLM, texts_XK: Tensor, views_YK: Tensor) -> Tensor:
    """(X, Y) bool: pairs that are no negatives. The official codes know of none but the pair itself."""
    if model.config.negatives == "official":
        return torch.zeros(len(texts_XK), len(views_YK), dtype=torch.bool, device=texts_XK.device)
    return false_negatives(texts_XK, views_YK)
