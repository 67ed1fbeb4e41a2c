"""What more nodes bring: a recipe on 1 to 16 of them, its batch grown with up to 64, and how many to take."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from relvlm.config.schema import Config
from relvlm.data.batches.pools import check_ranks
from relvlm.errors import UserError
from relvlm.kinds import BatchKind
from relvlm.plan.cluster import Cluster
from relvlm.plan.estimate import Plan, Step, plan
from relvlm.plan.memory import states

STRONG, WEAK = (1, 2, 4, 8, 16), (1, 2, 4, 8, 16, 32, 64)  # nodes
AIM = 0.9  # of the first row's work for a GPU-hour
ROOM = 0.9  # of a GPU's memory: workspaces and fragmentation are not counted
HOUR = 3600


@dataclass(frozen=True)
class Row:
    """`config` on `cluster`, and how much of the work of the first row's GPU-hour one does here."""

    config: Config
    cluster: Cluster
    plan: Plan
    efficiency: float = 1.0

    @property
    def fits_ranks(self) -> bool:
        return shares_alike(self.config, self.cluster.gpus)

    @property
    def memory(self) -> float:
        """Bytes of a GPU."""
        element = 2 if self.config.dtype == "bf16" else 4
        fixed = states(self.plan.parameters, self.cluster.stage, self.cluster.gpus, element)
        return sum(fixed.values()) + self.plan.teacher + sum(self.plan.activations.values())

    @property
    def fits_memory(self) -> bool:
        return self.memory <= ROOM * self.cluster.device.memory

    @property
    def hours(self) -> float:
        return self.plan.total_seconds / HOUR

    @property
    def gpu_hours(self) -> float:
        return self.hours * self.cluster.gpus

    @property
    def issuing(self) -> float:
        """Share of a step in which GPUs have nothing to do, as Python issues kernels more slowly than they run."""
        return self._share(lambda step: step.busy - step.compute)

    @property
    def communicating(self) -> float:
        """Share of a step in which GPUs wait for each other."""
        return self._share(lambda step: step.communicate)

    def _share(self, part: Callable[[Step], float]) -> float:
        weight = {kind: getattr(self.config.data.ratio, kind) for kind in self.plan.steps}
        total = sum(weight[kind] * step.seconds for kind, step in self.plan.steps.items())
        return sum(weight[kind] * part(step) for kind, step in self.plan.steps.items()) / total


def shares_alike(config: Config, gpus: int) -> bool:
    """Whether so many GPUs can share every batch of the recipe."""
    try:
        check_ranks(config.data, gpus, config.accumulate)
    except UserError:
        return False
    return True


def strong(config: Config, cluster: Cluster) -> list[Row]:
    """The same recipe on more nodes, as far as each GPU has an image."""
    rows: list[Row] = []
    for nodes in STRONG:
        here = replace(cluster, nodes=nodes)
        try:
            row = Row(config, here, plan(config, here, "ours"))
        except UserError:
            break
        rows.append(replace(row, efficiency=(rows or [row])[0].gpu_hours / row.gpu_hours))
    return rows


def weak(config: Config, cluster: Cluster) -> list[Row]:
    """Batches that grow with the nodes: a GPU's share is that of one node."""
    rows: list[Row] = []
    for nodes in WEAK:
        here, grown = replace(cluster, nodes=nodes), _grown(config, nodes)
        row = Row(grown, here, plan(grown, here, "ours"))
        rows.append(replace(row, efficiency=(rows or [row])[0].plan.mean_seconds / row.plan.mean_seconds))
    return rows


def _grown(config: Config, times: int) -> Config:
    kinds: Iterable[BatchKind] = config.data.drawn
    batch = replace(config.data.batch, **{kind: times * getattr(config.data.batch, kind) for kind in kinds})
    return replace(config, data=replace(config.data, batch=batch))


def recommended(rows: list[Row]) -> Row | None:
    """Of a strong scaling: the most nodes that do AIM of the work per GPU-hour of the fewest that will do."""
    fitting = [row for row in rows if row.fits_ranks and row.fits_memory]
    return next((row for row in reversed(fitting) if row.efficiency >= AIM * fitting[0].efficiency), None)
