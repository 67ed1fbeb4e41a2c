"""What a rank holds of each trained parameter and of AdamW's moments, whatever ZeRO has made of them.

A parameter is flattened; a rank holds a slice of it in fp32 (with ZeRO 0 all of it). The slices are views: what is
written into them is the state, once `refresh` has told the model. DeepSpeed has no such interface for all stages, so
its own fields are read here, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from relvlm.ranks import rank

MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class Slice:
    """Elements [start, start + n) of a flattened parameter; `parts`: its `weight` and AdamW's MOMENTS, (n,) fp32."""

    name: str
    start: int
    parts: dict[str, Tensor]


def held(engine: Any) -> list[Slice]:
    """This rank's slices of the model's trained parameters, in their order. With ZeRO 0 every rank's are the same."""
    locate = _locate(engine)
    found = []
    for name, parameter in engine.module.named_parameters():
        if parameter.requires_grad and (place := locate(parameter)) is not None:
            flat, offset, start, n = place
            parts = {"weight": flat} | {moment: _state(engine, flat)[moment] for moment in MOMENTS}
            views = {part: x.detach().view(-1).narrow(0, offset, n) for part, x in parts.items()}
            found.append(Slice(name.removeprefix("model."), start, views))
    return found


def updates(engine: Any) -> int:
    """How many updates AdamW has made."""
    return int(max((float(state["step"]) for state in _adam(engine).state.values() if state), default=0.0))


def set_updates(engine: Any, count: int) -> None:
    """Let AdamW's bias correction go on from there; after `held`, which makes the state."""
    for state in _adam(engine).state.values():
        state["step"].fill_(float(count))


@torch.no_grad()
def refresh(engine: Any) -> None:
    """Carry what was written into the slices to the weights that the model computes with; every rank must call it."""
    optimizer, stage = engine.optimizer, engine.zero_optimization_stage()
    if stage == 3:
        for group in range(len(optimizer.fp32_partitioned_groups_flat)):
            optimizer._reassign_or_swap_out_partitioned_parameters(group)
        if optimizer.persistent_parameters:  # small ones are whole on every rank
            optimizer.persistent_parameters[0].partition(optimizer.persistent_parameters)
            optimizer.persistent_parameters[0].all_gather(optimizer.persistent_parameters)
    elif hasattr(optimizer, "update_lp_params"):
        optimizer.update_lp_params()
    else:
        for parameter, master in _masters(optimizer):
            parameter.data.copy_(master.data)


Place = tuple[Tensor, int, int, int]  # a tensor of the optimizer, where in it, where in the parameter, how many


def _locate(engine: Any) -> Callable[[nn.Parameter], Place | None]:
    """Of a parameter, what this rank holds of it; None where that is nothing."""
    optimizer, stage = engine.optimizer, engine.zero_optimization_stage()
    if stage == 3:
        return lambda parameter: _sharded(optimizer, parameter)
    if hasattr(optimizer, "update_lp_params"):
        groups = getattr(optimizer, "single_partition_of_fp32_groups", None)
        flats = optimizer.fp32_groups_flat_partition if groups is None else groups
        return lambda parameter: _partitioned(flats, parameter)
    masters = {id(parameter): master for parameter, master in _masters(optimizer)}
    return lambda parameter: (masters.get(id(parameter), parameter), 0, 0, parameter.numel())


def _sharded(optimizer: Any, parameter: Any) -> Place | None:
    """ZeRO 3: equal shards, the last ones filled up."""
    group, offset, size = optimizer.grad_position[optimizer.get_param_id(parameter)]
    start = rank() * size
    n = min(size, parameter.ds_numel - start)
    return (optimizer.fp32_partitioned_groups_flat[group], offset, start, n) if n > 0 else None


def _partitioned(flats: list[Tensor], parameter: Any) -> Place | None:
    """ZeRO 1 and 2: equal partitions of each group of parameters, all put into one."""
    mapping = parameter._hp_mapping
    if mapping is None:
        return None
    inside, of_parameter = mapping.hp_fragment_address, mapping.lp_fragment_address
    return flats[mapping.param_group_index], inside.start, of_parameter.start, inside.numel


def _masters(optimizer: Any) -> Iterator[tuple[nn.Parameter, Tensor]]:
    """ZeRO 0 in bf16: a copy of each parameter in fp32. In fp32 there are none."""
    for parameters, masters in zip(
        getattr(optimizer, "fp16_groups", []), getattr(optimizer, "fp32_groups", []), strict=True
    ):
        yield from zip(parameters, masters, strict=True)


def _adam(engine: Any) -> torch.optim.AdamW:
    return getattr(engine.optimizer, "optimizer", engine.optimizer)


def _state(engine: Any, flat: Tensor) -> dict[str, Tensor]:
    """AdamW's state of one of its tensors, made as it would be at the first update."""
    state = _adam(engine).state[flat]
    if not state:
        state["step"] = torch.zeros((), dtype=torch.float32, device=flat.device)
        state |= {moment: torch.zeros_like(flat, memory_format=torch.preserve_format) for moment in MOMENTS}
    return state
