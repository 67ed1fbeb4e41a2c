"""How long a collective takes on GPUs of so many nodes: NCCL's own model, with the links of the data sheets.

A ring has all GPUs; it enters and leaves a node over each of its network adapters ("rails") at once, as NCCL makes as
many rings as there are adapters. Latencies and shares of the bandwidth: NVIDIA/nccl, src/graph/tuning.cc.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log2

from relvlm.plan.devices import Device
from relvlm.plan.traffic import on_the_wire

REACHED = 0.85  # of a link's bandwidth, by large messages; assumed


@dataclass(frozen=True)
class Protocol:
    """Microseconds of a call, of a hop within a node and of one between nodes; the share of the bandwidth."""

    call: float
    within: float
    between: float
    share: float


RINGS = (Protocol(3.6, 0.85, 2.7, 0.25), Protocol(10.0, 1.9, 4.0, 0.92), Protocol(8.4, 3.4, 9.6, 1.0))
TREES = (Protocol(4.4, 0.94, 5.0, 0.24), Protocol(4.4, 1.2, 8.5, 0.82))  # of LL, LL128; rings of Simple, too


@dataclass(frozen=True)
class Cluster:
    """`mfu`: the share of the device's FLOP/s that matrix products reach, assumed the same for both ways.

    `host`: seconds in which Python issues the kernels of a step, below which no chunk of one comes. `rails`: network
    adapters of a node, by default one for each GPU.
    """

    device: Device
    nodes: int
    gpus_per_node: int
    stage: int = 1
    mfu: float = 0.4
    host: float = 0.013
    rails: int | None = None

    @property
    def gpus(self) -> int:
        return self.nodes * self.gpus_per_node

    @property
    def bandwidth(self) -> float:
        """Bytes/s of all rings together: of one link within a node, of all adapters of a node between them."""
        if self.nodes == 1:
            return REACHED * self.device.within_node
        between = (self.rails or self.gpus_per_node) * self.device.between_nodes
        return REACHED * min(self.device.within_node, between)

    def seconds(self, name: str, size: float) -> float:
        """Of one collective (all_reduce, reduce_scatter, all_gather), into which each GPU puts `size` bytes.

        The fastest of NCCL's algorithms and protocols, as NCCL itself chooses.
        """
        if self.gpus == 1:
            return 0.0
        twice = 2 if name == "all_reduce" else 1
        hops = twice * (self.gpus - self.nodes), twice * (self.nodes - 1)
        sent = on_the_wire({name: size}, self.gpus) / self.bandwidth
        times = [_time(ring, *hops, sent) for ring in RINGS]
        if name == "all_reduce":
            hops = 2 * (self.gpus_per_node - 1), 2 * ceil(log2(self.nodes))
            times += [_time(tree, *hops, sent) for tree in TREES]
        return min(times)


def _time(protocol: Protocol, within: int, between: int, sent: float) -> float:
    latency = protocol.call + within * protocol.within + between * protocol.between
    return latency * 1e-6 + sent / protocol.share
