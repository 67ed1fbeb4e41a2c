"""A recipe's cost on so many GPUs: FLOPs, traffic, memory, step time, days; for our step and the official one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import torch

from relvlm.config.schema import Config
from relvlm.errors import UserError
from relvlm.kinds import BatchKind
from relvlm.model import RelVLM
from relvlm.plan import flops, memory, traffic
from relvlm.plan.devices import Device
from relvlm.plan.flops import GQA_RELATIONS, Count, Flops, Sizes
from relvlm.plan.memory import Bytes
from relvlm.plan.workload import Workload, workloads

WAYS: dict[str, tuple[Count, Callable[[Sizes, Workload, int], Bytes]]] = {
    "ours": (flops.packed, memory.packed_activations),
    "official": (flops.official, memory.official_activations),
}


@dataclass(frozen=True)
class Cluster:
    """`mfu`: the share of the device's FLOP/s that matrix products reach, assumed the same for both ways."""

    device: Device
    nodes: int
    gpus_per_node: int
    stage: int = 1
    mfu: float = 0.4

    @property
    def gpus(self) -> int:
        return self.nodes * self.gpus_per_node

    @property
    def bandwidth(self) -> float:
        """Of a ring: that of its slowest link."""
        return self.device.between_nodes if self.nodes > 1 else self.device.within_node


@dataclass(frozen=True)
class Step:
    """One kind's step of the whole cluster: seconds of computing and of communicating, one after the other."""

    flops: Flops
    traffic: Bytes
    activations: Bytes
    compute: float
    communicate: float

    @property
    def seconds(self) -> float:
        return self.compute + self.communicate


@dataclass(frozen=True)
class Plan:
    parameters: int
    steps: dict[BatchKind, Step]
    mean_seconds: float
    mean_flops: float
    total_seconds: float

    @property
    def activations(self) -> Bytes:
        """Those of the kind that keeps most."""
        return max((s.activations for s in self.steps.values()), key=lambda kept: sum(kept.values()))


def plan(config: Config, cluster: Cluster, way: str) -> Plan:
    """The whole recipe done in one of WAYS; raises UserError where a batch cannot be shared by the GPUs.

    The official way knows of no dropped patches. Means are over both phases of `low_resolution`, `steps` of full size.
    """
    parameters, low = count_parameters(config), config.low_resolution
    steps = _steps(config, config.model.image_size, cluster, way, parameters)
    seconds, mean_flops = _means(config, steps)
    if low.steps:
        small = _means(config, _steps(config, low.image_size, cluster, way, parameters))
        share = low.steps / config.steps
        seconds += share * (small[0] - seconds)
        mean_flops += share * (small[1] - mean_flops)
    return Plan(parameters, steps, seconds, mean_flops, seconds * config.steps)


def _steps(config: Config, image_size: int, cluster: Cluster, way: str, parameters: int) -> dict[BatchKind, Step]:
    """A step of every kind that is drawn, on images of `image_size`."""
    element = 2 if config.dtype == "bf16" else 4
    sizes = Sizes(replace(config.model, image_size=image_size))
    chunks = config.accumulate if way == "ours" else 1  # the official codes have no chunks
    return {
        kind: _step(sizes, works, cluster, way, parameters, element, chunks)
        for kind, works in workloads(config).items()
    }


def _means(config: Config, steps: dict[BatchKind, Step]) -> tuple[float, float]:
    """Seconds and FLOPs of a step, by how often each kind is drawn."""
    weights = {kind: getattr(config.data.ratio, kind) for kind in steps}
    total = sum(weights.values())
    seconds = sum(weights[kind] * step.seconds for kind, step in steps.items()) / total
    return seconds, sum(weights[kind] * sum(step.flops.values()) for kind, step in steps.items()) / total


def count_parameters(config: Config) -> int:
    """Trainable parameters with BERT's vocabulary and GQA's relations; nothing is allocated."""
    relations = GQA_RELATIONS if config.model.relations else 0
    frozen = replace(config.model, momentum=replace(config.model.momentum, enabled=False))
    with torch.device("meta"):
        model = RelVLM(frozen, flops.BERT_WORDS, relations)
    return sum(p.numel() for p in model.parameters())


def _step(
    sizes: Sizes,
    works: list[Workload],
    cluster: Cluster,
    way: str,
    parameters: int,
    element: int,
    chunks: int,
) -> Step:
    count, keep = WAYS[way]
    shares = [_share(work, cluster.gpus) for work in works]
    kept = _sum(keep(sizes, _chunk(share, chunks), element) for share in shares)
    computed = flops.trained(sizes, works, chunks, count)
    if chunks > 1 and any(work.aligned for work in works):
        kept |= _sum(memory.features(sizes, share, element) for share in shares)
    features = [traffic.contrast(sizes, share, cluster.gpus) for share in shares]
    sent = _sum([traffic.collectives(parameters, cluster.stage, cluster.gpus, element, chunks), *features])
    return Step(
        flops=computed,
        traffic=sent,
        activations=kept,
        compute=sum(computed.values()) / (cluster.gpus * cluster.device.flops * cluster.mfu),
        communicate=traffic.on_the_wire(sent, cluster.gpus) / cluster.bandwidth,
    )


def _sum(parts: Iterable[dict[str, float]]) -> dict[str, float]:
    total: Counter[str] = Counter()
    for part in parts:
        total.update(part)  # type: ignore[arg-type]  # of floats
    return dict(total)


def _share(work: Workload, gpus: int) -> Workload:
    if work.images % gpus:
        raise UserError(f"data.batch.{work.kind}: {work.images} images cannot be shared by {gpus} GPUs")
    return replace(work, images=work.images // gpus)


def _chunk(share: Workload, chunks: int) -> Workload:
    """The largest of the chunks of a GPU's share."""
    if share.images < chunks:
        raise UserError(f"accumulate: {chunks} chunks are more than the {share.images} {share.kind} images of a GPU")
    return replace(share, images=-(-share.images // chunks))
