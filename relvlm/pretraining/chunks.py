"""Gradient accumulation that leaves the contrastive batch whole (GradCache: Gao et al., 2021).

A step goes through its images in chunks. First, without a gradient, every chunk is encoded, and ITC of all chunks and
ranks gives the gradient of their features. Then each chunk is encoded again, with the same dropout, for its other
losses and the product of its features with that gradient. Losses are means over the step, for each chunk's counts by
its share; ITM's hard negatives alone differ, since they are drawn within the chunk.

Legend: G groups, E embedding width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from relvlm.data.batches.batch import Batch, Section
from relvlm.losses.precision import at_least_fp32
from relvlm.pretraining.negatives import Features, contrast, counted_pairs, group_keys
from relvlm.pretraining.objectives import Lesson, Outcome, encode, teach

if TYPE_CHECKING:
    from relvlm.model import RelVLM

Counts = dict[str, int | Tensor]  # by KIND/OBJECTIVE


@dataclass(frozen=True)
class Contrast:
    """ITC of a whole step: each section's value, and its gradient to a chunk's features and to the temperature."""

    values: dict[str, Tensor]
    features: Features
    temperature: Tensor

    def surrogate(self, features: Features, temperature: Tensor) -> Tensor:
        """A scalar of this gradient."""
        pairs = zip((*features, temperature), (*self.features, self.temperature), strict=True)
        return torch.stack([(at_least_fp32(x) * slope).sum() for x, slope in pairs]).sum()


@dataclass(frozen=True)
class Part:
    """What a chunk has to know of its step: the seed of its dropout, and how much of each objective is its own.

    ITC's values and its gradient to the temperature come in equal parts from all chunks, so that sums are the step's.
    """

    seed: int
    shares: dict[str, Tensor | float]
    contrast: Contrast | None  # of aligned chunks
    lesson: Lesson | None

    def weigh(self, section: Section, outcome: Outcome) -> Outcome:
        """The chunk's part of a section's losses and metrics, ITC being one of the metrics."""
        losses, metrics = (
            {name: value * self._share(section, name) for name, value in x.items()} for x in outcome
        )
        if self.contrast is not None and section.kind in self.contrast.values:
            metrics["itc"] = self.contrast.values[section.kind]
        return Outcome(losses, metrics)

    def _share(self, section: Section, name: str) -> Tensor | float:
        return self.shares[f"{section.kind}/{name.removesuffix('_accuracy')}"]


@torch.no_grad()
def parts(model: RelVLM, chunks: list[Batch]) -> list[Part]:
    """Of the chunks of a step, which have the same sections."""
    seeds = torch.randint(2**62, (len(chunks),)).tolist()
    lessons, shares = teach(model, chunks), _shares(model, chunks)
    contrasts: Sequence[Contrast | None] = [None] * len(chunks)
    if chunks[0].aligned:
        features = [_features(model, chunk, seed) for chunk, seed in zip(chunks, seeds, strict=True)]
        contrasts = _contrasts(model, chunks, features, lessons)
    return [Part(*part) for part in zip(seeds, shares, contrasts, lessons, strict=True)]


def _features(model: RelVLM, chunk: Batch, seed: int) -> Features:
    with random_numbers(seed):
        features = encode(model, chunk, model.config).features
    assert features is not None
    return Features(*(x.requires_grad_() for x in features))


def _contrasts(
    model: RelVLM, chunks: list[Batch], features: list[Features], lessons: list[Lesson | None]
) -> list[Contrast]:
    """Of each chunk; the gradient stops at the features."""
    with torch.enable_grad():
        losses = contrast(model, chunks, features, [lesson.features for lesson in lessons if lesson])
        total = torch.stack([s.weight * losses[s.kind] for s in chunks[0].sections if s.kind in losses]).sum()
    leaves = [x for pair in features for x in pair]
    *slopes, temperature = torch.autograd.grad(total, [*leaves, model.temperature])
    n = len(chunks)
    values = {kind: loss.detach() / n for kind, loss in losses.items()}
    return [
        Contrast(values, Features(*pair), temperature / n)
        for pair in zip(slopes[::2], slopes[1::2], strict=True)
    ]


def _shares(model: RelVLM, chunks: list[Batch]) -> list[dict[str, Tensor | float]]:
    """Of each chunk among all, by what is counted in the means; 0 of nothing."""
    counts = [_counts(model, chunk) for chunk in chunks]
    totals = {name: sum(count[name] for count in counts) for name in counts[0]}
    return [{name: n / (totals[name] + (totals[name] == 0)) for name, n in count.items()} for count in counts]


def _counts(model: RelVLM, chunk: Batch) -> Counts:
    """Pairs of ITM, masked words, boxes and triplets of each section."""
    counts: Counts = {}
    for section in chunk.sections:
        if section.kind == "mrc":
            counts["mrc/mrc"] = len(chunk.relation)
            continue
        counts[f"{section.kind}/itm"] = counted_pairs(model, group_keys(chunk)[section.groups])
        counts[f"{section.kind}/mlm"] = section.masked.stop - section.masked.start
        counts[f"{section.kind}/bbox"] = section.regions.stop - section.regions.start
    return counts


@contextmanager
def random_numbers(seed: int) -> Iterator[None]:
    """Those of a seed for a while; then the others go on as if nothing had been drawn."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        yield
