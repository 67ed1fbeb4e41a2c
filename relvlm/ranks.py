"""The processes of a run: what they tell each other. How they meet: rendezvous.py."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from math import prod
from typing import Any, Generic, NamedTuple, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

from relvlm.errors import ToldByFirstRank, UserError
from relvlm.rendezvous import is_launched, rendezvous

Result = TypeVar("Result")

TIMEOUT = timedelta(minutes=10)  # a rank that waits longer for another ends the run


def join(backend: str) -> None:
    """Meet the processes of the launcher, without DeepSpeed; a process on its own stays without a group."""
    if not is_launched():
        return
    rendezvous()
    if int(os.environ["WORLD_SIZE"]) > 1 and not dist.is_initialized():
        dist.init_process_group(backend, timeout=TIMEOUT)


def new_group(timeout: timedelta) -> dist.ProcessGroup | None:
    """A group of all ranks on their CPUs with a time-out of its own; None where there is one rank alone."""
    return dist.new_group(backend="gloo", timeout=timeout) if world_size() > 1 else None


def gather_objects(value: Any, group: dist.ProcessGroup | None = None) -> list[Any]:
    """`value` of each rank, in their order."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value, group)
    return values


class Outcome(NamedTuple, Generic[Result]):
    """Of an action: its result, or what its UserError said."""

    result: Result | None
    refusal: str | None = None


def attempt(action: Callable[[], Result]) -> Outcome[Result]:
    """Its outcome, where a UserError counts as one."""
    try:
        return Outcome(action())
    except UserError as error:
        return Outcome(None, str(error))


def attempt_ahead(action: Callable[[], Result]) -> Outcome[Result] | None:
    """Its outcome on the rank that will be the first one, before they have met; None on the others.

    Others would wait for one that ends beforehand, so its UserError is raised when they `share` it; at once where
    there are no others.
    """
    if is_launched():
        rendezvous()
        if os.environ["RANK"] != "0":
            return None
        if os.environ["WORLD_SIZE"] != "1":
            return attempt(action)
    return Outcome(action())


def share(outcome: Outcome[Result] | None) -> Result:
    """On every rank the result that the first one has; a UserError there is raised on all of them."""
    if world_size() > 1:
        found = [outcome if rank() == 0 else None]
        dist.broadcast_object_list(found)
        (outcome,) = found
    result, refusal = cast(Outcome[Result], outcome)
    if refusal is not None:
        barrier()  # the first rank, which ends now, is the others' meeting point
        raise (ToldByFirstRank if rank() else UserError)(refusal)
    return cast(Result, result)


def on_first_rank(action: Callable[[], Result]) -> Result:
    """What it gives on rank 0; a UserError there is raised on every rank, none of which would come to know of it."""
    return share(attempt(action) if rank() == 0 else None)


def stop() -> None:
    """Leave the process group together: a bare destroy aborts now and then."""
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def barrier() -> None:
    if world_size() > 1:
        dist.barrier()


def sum_over_ranks(values: Tensor) -> Tensor:
    """Of each value the sum, in place."""
    if world_size() > 1:
        dist.all_reduce(values)
    return values


def gather_rows(*tensors: Tensor) -> tuple[Any, ...]:
    """Rows of all ranks (A, ...) of each tensor, with gradient, and last the index of the first own one.

    The tensors have as many rows as each other; ranks may differ in them (one host sync). All of them travel in one
    collective, and so do their gradients, which have one dtype: on many GPUs a collective costs its latency.
    """
    if world_size() == 1:
        return *tensors, 0
    counts = torch.zeros(world_size(), dtype=torch.int64, device=tensors[0].device)
    counts[rank()] = len(tensors[0])
    dist.all_reduce(counts)
    sizes = counts.tolist()
    longest = max(sizes)
    padded = [torch.cat([x, x.new_zeros(longest - len(x), *x.shape[1:])]) for x in tensors]
    gathered = _AllGather.apply(*padded) if any(x.requires_grad for x in tensors) else _all_gather(padded)
    return *(_without_padding(x, sizes) for x in gathered), sum(sizes[: rank()])


def _without_padding(x: Tensor, sizes: list[int]) -> Tensor:
    return torch.cat([block[:size] for block, size in zip(x.split(max(sizes)), sizes, strict=True)])


class _AllGather(torch.autograd.Function):
    """Concatenation over ranks; a row's gradient is the sum of what every rank's loss says of it."""

    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> tuple[Tensor, ...]:
        gathered = _all_gather(tensors)
        ctx.mark_non_differentiable(*(x for x in gathered if not x.is_floating_point()))
        return gathered

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        wanted = [place for place, needed in enumerate(ctx.needs_input_grad) if needed]
        own = _sum_of_own_rows(torch.cat([_flat(grads[place]) for place in wanted], 1))
        parts = own.split([_width(grads[place]) for place in wanted], 1)
        found = dict(zip(wanted, parts, strict=True))
        return tuple(
            found[place].reshape(-1, *grad.shape[1:]) if place in found else None for place, grad in enumerate(grads)
        )


def _sum_of_own_rows(grad: Tensor) -> Tensor:
    """Of every rank's gradient of all rows, the sum of those of this rank's rows."""
    if dist.get_backend() == dist.Backend.NCCL:  # half of what an all-reduce sends; gloo has none
        own = grad.new_empty(len(grad) // world_size(), *grad.shape[1:])
        dist.reduce_scatter_tensor(own, grad)
        return own
    dist.all_reduce(grad)
    return grad.chunk(world_size())[rank()]


def _all_gather(tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Of every rank's rows, as bytes side by side."""
    packed = torch.cat([_flat(x).view(torch.uint8) for x in tensors], 1)
    blocks = [torch.empty_like(packed) for _ in range(world_size())]
    dist.all_gather(blocks, packed)
    parts = torch.cat(blocks).split([_width(x) * x.element_size() for x in tensors], 1)
    return tuple(
        part.contiguous().view(x.dtype).reshape(-1, *x.shape[1:]) for part, x in zip(parts, tensors, strict=True)
    )


def _flat(x: Tensor) -> Tensor:
    return x.detach().reshape(len(x), _width(x)).contiguous()


def _width(x: Tensor) -> int:
    """Numbers of a row."""
    return prod(x.shape[1:])
