"""Means over a whole step, on all ranks and in all chunks: what weight a chunk's mean has in the step's.

DeepSpeed averages over ranks, and chunks are summed. So each mean is multiplied by what it counts, times the number of
ranks, over what is counted in the whole step: a text counts the same wherever it lies.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from relvlm.data.batches.batch import Batch
from relvlm.kinds import KINDS
from relvlm.pretraining.objectives import OBJECTIVES

Gather = Callable[..., tuple[Any, ...]]
Shares = dict[str, Tensor | float]  # by KIND/OBJECTIVE


class Ranks(NamedTuple):
    """The processes that train together, and what they tell each other in a step.

    `gather_rows` gives the rows of all ranks of each tensor, with gradient, and last the index of the first own one;
    `total` the sum over ranks of a tensor.
    """

    size: int
    gather_rows: Gather
    total: Callable[[Tensor], Tensor]


def one_rank(*tensors: Tensor) -> tuple[Any, ...]:
    """The `gather_rows` of a single process."""
    return *tensors, 0


ONE_RANK = Ranks(1, one_rank, lambda values: values)


def shares_of(chunks: Sequence[Batch], rule: str, ranks: Ranks) -> list[Shares]:
    """Of each chunk of this rank in the step, 0 of nothing; `rule`: ModelConfig.negatives. No host sync.

    Means of all ranks, and sums over chunks, are then the step's.
    """
    counted = [
        (f"{section.kind}/{name}", place, name)
        for place, section in enumerate(chunks[0].sections)
        for name in KINDS[section.kind].objectives
        if name in OBJECTIVES
    ]
    names = [name for name, *_ in counted]
    if len(chunks) == ranks.size == 1:
        return [dict.fromkeys(names, 1.0)]
    counts_CN = torch.stack([_counts(chunk, counted, rule) for chunk in chunks])
    total_N = ranks.total(counts_CN.sum(0)).clamp(min=1)
    shares_CN = counts_CN.double() * ranks.size / total_N
    return [dict(zip(names, row.unbind(), strict=True)) for row in shares_CN]


def _counts(chunk: Batch, counted: Sequence[tuple[str, int, str]], rule: str) -> Tensor:
    """(N,) int64."""
    device = chunk.text_key.device
    counts = [OBJECTIVES[name].counted(chunk, chunk.sections[place], rule) for _, place, name in counted]
    return torch.stack([n if isinstance(n, Tensor) else torch.full((), n, device=device) for n in counts])


def weighed(mean: Tensor, share: Tensor | float) -> Tensor:
    """A mean by its share, in the precision of the mean."""
    return mean * (share.to(mean.dtype) if isinstance(share, Tensor) else share)
