"""The simulated scaling of a recipe as `relvlm plan` prints it."""

from __future__ import annotations

from relvlm.config.schema import Config
from relvlm.plan.devices import GIB
from relvlm.plan.scaling import AIM, Row, recommended, shares_alike

MOST = 512  # GPUs that are looked at
HEAD = (
    "| nodes | GPUs | s a step | hours | GPU-hours | efficiency | issuing kernels | communicating | GiB of a GPU | {} |"
)
RULE = "|---:|---:|---:|---:|---:|---:|---:|---:|---:|---|"


def fitting_gpus(config: Config) -> str:
    """Which numbers of GPUs share every batch of the recipe."""
    fitting = [gpus for gpus in range(1, MOST + 1) if shares_alike(config, gpus)]
    return (
        f"Numbers of GPUs that share every batch alike: {', '.join(map(str, fitting))} (data.negative_pool, accumulate)"
    )


def strong_table(rows: list[Row]) -> list[str]:
    said = ["SIMULATED strong scaling: the recipe as it is, on more nodes", HEAD.format("fits")]
    return [*said, RULE, *(f"{_figures(row)} {_fits(row)} |" for row in rows)]


def weak_table(rows: list[Row]) -> list[str]:
    said = ["SIMULATED weak scaling: batches grow with the nodes, another training", HEAD.format("what bounds it")]
    return [*said, RULE, *(f"{_figures(row)} {'' if row.efficiency >= AIM else _bound(row)} |" for row in rows)]


def recommendation(rows: list[Row]) -> str:
    """How many nodes, and why not more."""
    chosen = recommended(rows)
    if chosen is None:
        return "Recommended: none of these numbers of nodes fits (take a smaller batch, accumulate, or smaller pools)"
    said = (
        f"Recommended: {_cost(chosen)}: the most nodes that keep {AIM:.0%} of the work a GPU-hour does on the fewest."
    )
    more = [row for row in rows if row.cluster.nodes > chosen.cluster.nodes]
    return f"{said} {_cost(more[0])}: {_why(more[0])}." if more else said


def _cost(row: Row) -> str:
    nodes = row.cluster.nodes
    return f"{nodes} {'node' if nodes == 1 else 'nodes'}, {row.hours:.1f} hours and {row.gpu_hours:,.0f} GPU-hours"


def _why(row: Row) -> str:
    fault = _fits(row)
    return fault if fault != "yes" else f"efficiency {row.efficiency:.0%}, {_bound(row)}"


def _figures(row: Row) -> str:
    return (
        f"| {row.cluster.nodes} | {row.cluster.gpus} | {row.plan.mean_seconds:.4f} | {row.hours:.1f} "
        f"| {row.gpu_hours:,.0f} | {row.efficiency:.0%} | {row.issuing:.0%} | {row.communicating:.0%} "
        f"| {row.memory / GIB:.1f} |"
    )


def _fits(row: Row) -> str:
    if not row.fits_memory:
        return "not into the memory"
    return "yes" if row.fits_ranks else "with smaller pools: easier negatives, another run"


def _bound(row: Row) -> str:
    words = f"issuing kernels {row.issuing:.0%}, communicating {row.communicating:.0%} of a step"
    return f"bound by {'Python' if row.issuing > row.communicating else 'the network'} ({words})"
