"""Gradient accumulation that leaves the contrastive batch whole (GradCache: Gao et al., 2021).

A step goes through its images in chunks. First, without a gradient, every chunk is encoded, and ITC of all chunks and
ranks gives the gradient of their features (`Pretraining.chunk_targets`). Then each chunk is encoded again, with the
same dropout, for its other losses and the product of its features with that gradient. Losses are means over the step,
each chunk's counting by its share (means.py); pools of hard negatives lie in one chunk each (data/batches/pools.py).

Legend: G groups, E embedding width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from relvlm.data.batches.batch import Batch, Section
from relvlm.kinds import BatchKind
from relvlm.losses.precision import at_least_fp32
from relvlm.pretraining.encode import Features
from relvlm.pretraining.means import Shares
from relvlm.pretraining.teacher import TeacherTargets


@dataclass(frozen=True)
class ItcGradient:
    """A chunk's part of the whole step's ITC: each section's value, the gradient to its features and the temperature.

    Values and the gradient to the temperature come in equal parts from all chunks, so that sums are the step's.
    """

    values: dict[BatchKind, Tensor]
    features: Features
    temperature: Tensor

    def surrogate(self, features: Features, temperature: Tensor) -> Tensor:
        """A scalar of this gradient."""
        pairs = zip((*features, temperature), (*self.features, self.temperature), strict=True)
        return torch.stack([(at_least_fp32(x) * slope).sum() for x, slope in pairs]).sum()


@dataclass(frozen=True)
class ChunkTargets:
    """What a chunk must know of its step: the seed of its dropout, and how much of each objective is its own."""

    seed: int
    shares: Shares
    itc: ItcGradient | None  # of aligned chunks
    teacher: TeacherTargets | None


class ChunkedStep:
    """The batches of a step's chunks; their targets are found in the forward of whichever comes first.

    In a forward, because ZeRO-3 gathers some parameters there only.
    """

    def __init__(self, batches: Sequence[Batch]) -> None:
        self.batches = list(batches)
        self.targets: list[ChunkTargets] = []


class Chunk(NamedTuple):
    """One of a step's chunks."""

    step: ChunkedStep
    place: int


def chunks_of(batches: Sequence[Batch]) -> list[Chunk] | list[None]:
    """What a forward takes beside each batch of a step; a batch that is the whole step is no chunk."""
    if len(batches) == 1:
        return [None]
    step = ChunkedStep(batches)
    return [Chunk(step, place) for place in range(len(batches))]


def itc_gradients(
    contrast: Callable[[Sequence[Features], Tensor], dict[BatchKind, Tensor]],
    sections: Sequence[Section],
    features: Sequence[Features],
    temperature: Tensor,
) -> list[ItcGradient]:
    """Of each chunk, from the features of all of them; `contrast` gives each section's loss. Gradients stop there."""
    leaves = [Features(*(x.detach().requires_grad_() for x in pair)) for pair in features]
    temperature = temperature.detach().requires_grad_()
    with torch.enable_grad():
        losses = contrast(leaves, temperature)
        total = torch.stack([s.weight * losses[s.kind] for s in sections if s.kind in losses]).sum()
    *slopes, slope = torch.autograd.grad(total, [*(x for pair in leaves for x in pair), temperature])
    n = len(features)
    values = {kind: loss.detach() / n for kind, loss in losses.items()}
    return [ItcGradient(values, Features(*pair), slope / n) for pair in zip(slopes[::2], slopes[1::2], strict=True)]


@contextmanager
def random_numbers(seed: int) -> Iterator[None]:
    """Those of a seed for a while; then the others go on as if nothing had been drawn."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        yield
