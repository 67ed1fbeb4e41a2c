"""Seconds of a step in which GPUs wait for each other: what of its communication nothing hides.

ZeRO 1 to 3 reduce gradients in buckets during the backward pass (`overlap_comm`), of which the last has nothing left to
hide behind; ZeRO-1 in that of the last chunk alone. ZeRO-3 gathers weights ahead of the forward pass. ZeRO-0 reduces
when the backward pass is over, and ZeRO 1 and 2 gather weights when the update is.
"""

from __future__ import annotations

from math import ceil

from relvlm.plan.cluster import Cluster
from relvlm.plan.traffic import Bytes

BUCKET = 50_000_000  # elements: the reduce_bucket_size of configs/deepspeed
FORWARD, BACKWARD = 1 / 3, 2 / 3  # of the time of a step
SUMS = 4  # all-reduces of a few numbers: what ranks count, the number of rows, the gradient's norm, skipped or not
GROUPS = 2  # of parameters, with weight decay and without, gathered one by one; the second one is small


def waiting(cluster: Cluster, weights: Bytes, features: Bytes, element: int, chunks: int, busy: float) -> float:
    """Seconds; `weights` and `features` as `traffic` counts them, `busy` is the time of the step without waiting."""
    if cluster.gpus == 1:
        return 0.0
    reduction = "reduce_scatter" if cluster.stage == 3 else "all_reduce"
    bucket = float(element * BUCKET)
    behind = {0: 0.0, 1: BACKWARD * busy / chunks}.get(cluster.stage, BACKWARD * busy)
    total = _bucketed(cluster, reduction, weights[reduction], bucket, behind)
    gathered = weights.get("all_gather", 0.0)
    if cluster.stage == 3:
        total += _bucketed(cluster, "all_gather", gathered, bucket / cluster.gpus, FORWARD * busy)
    elif cluster.stage:
        total += cluster.seconds("all_gather", gathered) + (GROUPS - 1) * cluster.seconds("all_gather", 0.0)
    return total + SUMS * cluster.seconds("all_reduce", 8.0) + _features(cluster, features)


def _bucketed(cluster: Cluster, name: str, size: float, bucket: float, behind: float) -> float:
    """Seconds of so many bytes in buckets, all but the last hidden by as much as is `behind`."""
    buckets = max(ceil(size / bucket), 1)
    each = cluster.seconds(name, size / buckets)
    return each + max((buckets - 1) * each - behind, 0.0)


def _features(cluster: Cluster, features: Bytes) -> float:
    """ITC: features of image and text, and keys, are gathered as one; the features' gradients are scattered as one."""
    size = features.get("all_gather", 0.0)
    if not size:
        return 0.0
    return cluster.seconds("all_gather", size) + cluster.seconds("reduce_scatter", size * cluster.gpus)
