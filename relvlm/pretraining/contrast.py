"""ITC over all batches of a step and all ranks (ALBEF, section 3.2), with a teacher against its queues (section 3.3).

Legend: G groups, A groups of all ranks, K key numbers, E embedding width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from relvlm.config.schema import ModelConfig
from relvlm.data.batches.batch import Batch
from relvlm.kinds import BatchKind
from relvlm.losses.itc import itc_loss
from relvlm.pretraining.encode import Features
from relvlm.pretraining.means import Ranks
from relvlm.pretraining.negatives import excluded_pairs, group_keys, other_pools
from relvlm.pretraining.teacher import Teacher, TeacherTargets


class Contrast:
    """ITC of each aligned section, over its groups in all of a step's batches and on all ranks."""

    def __init__(self, config: ModelConfig, ranks: Ranks, teacher: Teacher | None) -> None:
        self.config, self.ranks, self.teacher = config, ranks, teacher

    def __call__(
        self,
        batches: Sequence[Batch],
        features: Sequence[Features],
        targets: Sequence[TeacherTargets | None],
        temperature: Tensor,
    ) -> dict[BatchKind, Tensor]:
        """The loss of each section; its mean over ranks is that of all rows. The teacher's features then go into its
        queues, section by section and in the order of the global batch.
        """
        taught = [target.features for target in targets if target is not None]
        aligned = [(place, s.kind) for place, s in enumerate(batches[0].sections) if s.aligned]
        own = [(kind, _keys(batches, place), _of_section(batches, features, place)) for place, kind in aligned]
        if self.teacher is None or not taught:
            return {kind: self.over_ranks(keys_GK, of_kind, temperature) for kind, keys_GK, of_kind in own}
        losses, by_teacher = {}, [_of_section(batches, taught, place) for place, _ in aligned]
        everyone = [self.ranks.gather_rows(*each)[:2] for each in by_teacher]
        for (kind, keys_GK, of_kind), each, rows in zip(own, by_teacher, everyone, strict=True):
            loss = self.beside_queue(self.teacher, keys_GK, of_kind, each, temperature)
            losses[kind] = self._share(len(keys_GK), len(rows[0])) * loss
        for rows in everyone:
            self.teacher.enqueue(*rows)
        return losses

    def _share(self, own: int, everyone: int) -> float:
        """What a mean over the own rows weighs in that over all ranks."""
        return own * self.ranks.size / everyone

    def beside_queue(
        self, teacher: Teacher, keys_GK: Tensor, features: Features, taught: Features, temperature: Tensor
    ) -> Tensor:
        """ITC of groups with these keys (`group_keys`) against the teacher's features, `taught`, of their pool and its
        queue.
        """
        excluded_GG = excluded_pairs(keys_GK, keys_GK, self.config.negatives) | other_pools(keys_GK)
        keys = teacher.contrast_keys(taught, temperature, excluded_GG)
        return itc_loss(
            *features, keys.images, keys.texts, temperature, 0,
            keys.excluded_i2t, keys.excluded_t2i, keys.soft_i2t, keys.soft_t2i,
        )  # fmt: skip

    def over_ranks(self, keys_GK: Tensor, features: Features, temperature: Tensor) -> Tensor:
        """ITC of groups with these keys (`group_keys`) against those of all ranks."""
        image_GE, text_GE = features
        image_AE, text_AE, keys_AK, first = self.ranks.gather_rows(image_GE, text_GE, keys_GK)
        share = self._share(len(keys_GK), len(keys_AK))
        if self.config.itc_gradient == "own_rank":  # X-VLM: the loss of all rows, through the own ones alone
            image_GE = image_AE = _own_alone(image_AE, image_GE, first)
            text_GE = text_AE = _own_alone(text_AE, text_GE, first)
            keys_GK, first, share = keys_AK, 0, 1.0
        rule = self.config.negatives
        excluded_i2t = excluded_pairs(keys_AK, keys_GK, rule).T
        excluded_t2i = excluded_pairs(keys_GK, keys_AK, rule)
        return share * itc_loss(image_GE, text_GE, image_AE, text_AE, temperature, first, excluded_i2t, excluded_t2i)


def _keys(batches: Sequence[Batch], place: int) -> Tensor:
    """`group_keys` of one section's groups, of all batches."""
    return torch.cat([group_keys(batch)[batch.sections[place].groups] for batch in batches])


def _of_section(batches: Sequence[Batch], features: Sequence[Features], place: int) -> Features:
    """Those of one section's groups, of all batches."""
    parts = [f.of(batch.sections[place]) for batch, f in zip(batches, features, strict=True)]
    return Features(*(torch.cat(part) for part in zip(*parts, strict=True)))


def _own_alone(all_AE: Tensor, own_GE: Tensor, first: int) -> Tensor:
    before, after = all_AE[:first].detach(), all_AE[first + len(own_GE) :].detach()
    return torch.cat([before, own_GE, after])
