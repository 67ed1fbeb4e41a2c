"""Which pairs of text and view must not serve as negatives, and ITM's hard ones.

Legend: G groups, X texts, Y views, K key numbers, E embedding width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from relvlm.data.batches.batch import Batch
from relvlm.losses.itm import IGNORED, hard_negatives
from relvlm.losses.precision import at_least_fp32
from relvlm.pretraining.encode import Features


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


def draw_negatives(
    features: Features,
    keys: Features,
    temperature: Tensor,
    excluded_GG: Tensor,
    floor: float,
    apart_GG: Tensor | None = None,
    draws_G2: Tensor | None = None,
) -> Negatives:
    """Hard negatives by similarities to `keys`: the teacher's features where there is one (ALBEF, section 3.2).

    `floor` is added to the probabilities (X-VLM); `excluded_GG` as `excluded_pairs` gives it; `apart_GG` as
    `other_pools` does: probabilities are those within a pool. `draws_G2`: see Batch.draws.
    """
    t2i_GG, i2t_GG = similarities(features, temperature, keys)
    excluded_GG = with_own_pairs(excluded_GG)
    if apart_GG is not None:
        excluded_GG = excluded_GG | apart_GG
        t2i_GG, i2t_GG = (s.masked_fill(apart_GG, float("-inf")) for s in (t2i_GG, i2t_GG))
    draws = (None, None) if draws_G2 is None else draws_G2.unbind(1)
    view_of_text, has_view = hard_negatives(t2i_GG, excluded_GG, floor, draws[0])
    text_of_view, has_text = hard_negatives(i2t_GG, excluded_GG.T, floor, draws[1])
    negative = torch.where(torch.cat([has_view, has_text]), 0, IGNORED)
    return Negatives(view_of_text, text_of_view, torch.cat([torch.ones_like(view_of_text), negative]))


@torch.no_grad()
def similarities(features: Features, temperature: Tensor, keys: Features) -> tuple[Tensor, Tensor]:
    """(G, G) text to view and view to text, over the temperature; in fp32, which the teacher's features are in."""
    (image_GE, text_GE), (image_keys, text_keys) = (map(at_least_fp32, each) for each in (features, keys))
    t2i_GG, i2t_GG = text_GE @ image_keys.T, image_GE @ text_keys.T
    return t2i_GG / temperature, i2t_GG / temperature


def excluded_pairs(texts_XK: Tensor, views_YK: Tensor, rule: str) -> Tensor:
    """(X, Y) bool: pairs that must not serve as negatives, for keys of `group_keys`.

    `rule` is that of ModelConfig.negatives: the official codes ("official") know of none but the pair itself.
    """
    if rule == "official":
        return torch.zeros(len(texts_XK), len(views_YK), dtype=torch.bool, device=texts_XK.device)
    return false_negatives(texts_XK, views_YK)


def false_negatives(texts_XK: Tensor, views_YK: Tensor) -> Tensor:
    """(X, Y) bool: text x is as true of view y as its own. Keys are those of `group_keys`.

    True for the same text, and for a whole image under any text of that same image.
    """
    same_text = texts_XK[:, None, 0] == views_YK[None, :, 0]
    same_image = texts_XK[:, None, 1] == views_YK[None, :, 1]
    return same_text | (same_image & views_YK[None, :, 2].bool())


def other_pools(keys_GK: Tensor) -> Tensor:
    """(G, G) bool: pairs of groups of different pools; keys are those of `group_keys`."""
    pool_G = keys_GK[:, 3]
    return pool_G[:, None] != pool_G


def group_keys(batch: Batch) -> Tensor:
    """(G, 4) int64: text, image, whole-image flag and pool of each group."""
    image_key = batch.image_key[batch.regions.image.long()]
    pool = torch.zeros_like(batch.text_key) if batch.pool is None else batch.pool
    return torch.stack([batch.text_key, image_key, batch.whole.long(), pool], dim=1)


def counted_pairs(keys_GK: Tensor, rule: str) -> Tensor:
    """How many pairs ITM counts of such groups: each with itself, and each text and each view that has a negative."""
    possible_GG = ~(with_own_pairs(excluded_pairs(keys_GK, keys_GK, rule)) | other_pools(keys_GK))
    return len(keys_GK) + possible_GG.any(0).sum() + possible_GG.any(1).sum()


def with_own_pairs(excluded_GG: Tensor) -> Tensor:
    """`excluded_GG` and the groups themselves."""
    return excluded_GG | torch.eye(len(excluded_GG), dtype=torch.bool, device=excluded_GG.device)
