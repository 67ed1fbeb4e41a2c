"""ITC over all batches of a step and all ranks (ALBEF, section 3.2), with a teacher against its queues (section 3.3).

Legend: G groups, A groups of all ranks, K key numbers, E embedding width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from relvlm.config.schema import ModelConfig
from relvlm.data.batches.batch import Batch
from relvlm.kinds import BatchKind
from relvlm.losses.itc import itc_loss
from relvlm.pretraining.encode import Features
from relvlm.pretraining.negatives import excluded_pairs, group_keys
from relvlm.pretraining.teacher import Teacher, TeacherTargets

Gather = Callable[..., tuple[Any, ...]]


def one_rank(*tensors: Tensor) -> tuple[Any, ...]:
    """The gather of a single process: of each tensor the rows of all ranks, then the first own one."""
    return *tensors, 0


class Contrast:
    """ITC of each aligned section, over its groups in all of a step's batches and on all ranks.

    `gather` gives the rows of all ranks of each tensor, with gradient, and last the index of the first own one.
    """

    def __init__(self, config: ModelConfig, gather: Gather, teacher: Teacher | None) -> None:
        self.config, self.gather, self.teacher = config, gather, teacher

    def __call__(
        self,
        batches: Sequence[Batch],
        features: Sequence[Features],
        targets: Sequence[TeacherTargets | None],
        temperature: Tensor,
    ) -> dict[BatchKind, Tensor]:
        """The loss of each section. The teacher's features then go into its queues."""
        taught = [target.features for target in targets if target is not None]
        losses: dict[BatchKind, Tensor] = {}
        for place, section in enumerate(batches[0].sections):
            if section.aligned:
                keys = [group_keys(batch)[batch.sections[place].groups] for batch in batches]
                own = _of_section(batches, features, place)
                by_teacher = _of_section(batches, taught, place) if taught else None
                losses[section.kind] = self.of_groups(torch.cat(keys), own, by_teacher, temperature)
        if self.teacher is not None and taught:
            self.teacher.enqueue(*self.gather(*_joined(taught))[:2])
        return losses

    def of_groups(self, keys_GK: Tensor, features: Features, taught: Features | None, temperature: Tensor) -> Tensor:
        """ITC of groups with these keys (`group_keys`); `taught`: the momentum teacher's features of them."""
        if taught is None:
            return self._over_ranks(keys_GK, features, temperature)
        assert self.teacher is not None
        excluded_GG = excluded_pairs(keys_GK, keys_GK, self.config.negatives)
        keys = self.teacher.contrast_keys(taught, temperature, excluded_GG)
        return itc_loss(
            *features, keys.images, keys.texts, temperature, 0,
            keys.excluded_i2t, keys.excluded_t2i, keys.soft_i2t, keys.soft_t2i,
        )  # fmt: skip

    def _over_ranks(self, keys_GK: Tensor, features: Features, temperature: Tensor) -> Tensor:
        image_GE, text_GE = features
        image_AE, text_AE, keys_AK, first = self.gather(image_GE, text_GE, keys_GK)
        if self.config.itc_gradient == "own_rank":  # X-VLM: the loss of all rows, through the own ones alone
            image_GE = image_AE = _own_alone(image_AE, image_GE, first)
            text_GE = text_AE = _own_alone(text_AE, text_GE, first)
            keys_GK, first = keys_AK, 0
        rule = self.config.negatives
        excluded_i2t = excluded_pairs(keys_AK, keys_GK, rule).T
        excluded_t2i = excluded_pairs(keys_GK, keys_AK, rule)
        return itc_loss(image_GE, text_GE, image_AE, text_AE, temperature, first, excluded_i2t, excluded_t2i)


def _of_section(batches: Sequence[Batch], features: Sequence[Features], place: int) -> Features:
    """Those of one section's groups, of all batches."""
    return _joined([f.of(batch.sections[place]) for batch, f in zip(batches, features, strict=True)])


def _joined(features: Sequence[Features]) -> Features:
    return Features(*(torch.cat(parts) for parts in zip(*features, strict=True)))


def _own_alone(all_AE: Tensor, own_GE: Tensor, first: int) -> Tensor:
    before, after = all_AE[:first].detach(), all_AE[first + len(own_GE) :].detach()
    return torch.cat([before, own_GE, after])
