"""Bytes that one step of data-parallel training hands to collectives, on each GPU.

As DeepSpeed 0.19's own comms log counts them (`tests/plan/test_traffic.py` compares): the size of the tensor that a
rank puts in. ZeRO 1 and 2 all-reduce gradients, update their share of the weights and gather the shares.
"""

from __future__ import annotations

from relvlm.plan.flops import Sizes
from relvlm.plan.workload import Workload

Bytes = dict[str, float]
ITC_KEYS = 24  # bytes of a group's three int64 keys, which tell false negatives


def collectives(parameters: int, stage: int, gpus: int, element: int, chunks: int = 1) -> Bytes:
    """Gradients and weights; nothing on one GPU. ZeRO 2 and 3 reduce the gradients of each chunk.

    ZeRO-3 gathers the weights once: on its defaults a model of up to 1e9 parameters stays whole until the backward
    pass is over. In a step of several chunks they do not: it gathers them for every forward and backward pass.
    """
    if gpus == 1:
        return {}
    size = float(element * parameters)
    if stage == 0:
        return {"all_reduce": size}
    if stage == 3:
        gathers = 1 if chunks == 1 else 1 + 2 * chunks
        return {"reduce_scatter": chunks * size, "all_gather": gathers * size / gpus}
    return {"all_reduce": (chunks if stage == 2 else 1) * size, "all_gather": size / gpus}


def contrast(sizes: Sizes, work: Workload, gpus: int) -> Bytes:
    """ITC's all-gather of image and text features, keys beside them; `work` is the share of one GPU."""
    if gpus == 1 or not work.aligned:
        return {}
    row = 2 * 4 * sizes.model.embed_dim + ITC_KEYS
    return {"all_gather": float(work.images * work.groups * row)}


def on_the_wire(traffic: Bytes, gpus: int) -> float:
    """Bytes that a GPU sends in ring algorithms."""
    share = (gpus - 1) / gpus
    factor = {"all_reduce": 2 * share, "reduce_scatter": share, "all_gather": gpus - 1.0}
    return sum(factor[name] * size for name, size in traffic.items())
