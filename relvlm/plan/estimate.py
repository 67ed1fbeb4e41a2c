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
from relvlm.plan.cluster import Cluster
from relvlm.plan.flops import GQA_RELATIONS, Count, Flops, Sizes
from relvlm.plan.memory import Bytes
from relvlm.plan.overlap import waiting
from relvlm.plan.workload import Workload, workloads
from relvlm.pretraining.teacher import Teacher

WAYS: dict[str, tuple[Count, Callable[[Sizes, Workload, int], Bytes]]] = {
    "ours": (flops.packed, memory.packed_activations),
    "official": (flops.official, memory.official_activations),
}


@dataclass(frozen=True)
class Step:
    """One kind's step of the whole cluster: seconds of computing, of waiting for each other, of issuing kernels."""

    flops: Flops
    traffic: Bytes
    activations: Bytes
    compute: float
    communicate: float
    host: float = 0.0

    @property
    def busy(self) -> float:
        """Seconds without communication: GPU and host work side by side, and the slower one decides."""
        return max(self.compute, self.host)

    @property
    def seconds(self) -> float:
        return self.busy + self.communicate


@dataclass(frozen=True)
class Plan:
    """`teacher`: bytes of a momentum teacher and its queues, whole in fp32 on every GPU whatever the ZeRO stage."""

    parameters: int
    steps: dict[BatchKind, Step]
    mean_seconds: float
    mean_flops: float
    total_seconds: float
    teacher: int = 0

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
    return Plan(parameters, steps, seconds, mean_flops, seconds * config.steps, teacher_bytes(config))


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


def teacher_bytes(config: Config) -> int:
    """Of the momentum teacher and its queues; 0 without one. Nothing is allocated."""
    if not config.model.momentum.enabled:
        return 0
    with torch.device("meta"):
        student = RelVLM(config.model, flops.BERT_WORDS, GQA_RELATIONS)
        teacher = Teacher(student, config.model.momentum, config.model.embed_dim)
    return sum(tensor.nbytes for tensor in (*teacher.parameters(), *teacher.buffers()))


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
    weights = traffic.collectives(parameters, cluster.stage, cluster.gpus, element, chunks)
    features = _sum(traffic.contrast(sizes, share, cluster.gpus) for share in shares)
    compute = sum(computed.values()) / (cluster.gpus * cluster.device.peak(element) * cluster.mfu)
    host = chunks * cluster.host
    wait = waiting(cluster, weights, features, element, chunks, max(compute, host))
    return Step(computed, _sum([weights, features]), kept, compute, wait, host)


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
