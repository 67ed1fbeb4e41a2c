"""`relvlm plan`: what a recipe needs before anything is run."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from relvlm.config.exact import exact, not_exact
from relvlm.config.load import load_config
from relvlm.config.schema import Config
from relvlm.data.arguments import positive
from relvlm.data.batches.pools import check_ranks
from relvlm.plan.cluster import REACHED, Cluster
from relvlm.plan.devices import DEVICES, GIB
from relvlm.plan.memory import states
from relvlm.plan.workload import CAPTION_TOKENS, LABEL_TOKENS, SEEN_BY_A_REGION, TRIPLET_TOKENS

if TYPE_CHECKING:
    from relvlm.plan.estimate import Plan

HOUR = 3600


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Memory of a GPU by ZeRO stage, FLOPs and traffic of a step, hours and GPU-hours of the whole recipe: our step "
        "beside the official codes' way (separate padded passes on copied images). Options that are not exact "
        "(model.vision.patch_keep, low_resolution), where they are on, have a table of their own."
    )
    parser.epilog = "example: relvlm plan --config configs/13m/rex_vlm.yaml --gpus 8 --device h200 --scaling"
    parser.add_argument("--config", type=Path, required=True, help="YAML, e.g. configs/13m/rex_vlm.yaml")
    parser.add_argument("--nodes", type=positive, default=1)
    parser.add_argument("--gpus", type=positive, default=8, help="GPUs of a node (8)")
    parser.add_argument("--device", choices=DEVICES, default="h100")
    parser.add_argument("--mfu", type=_share, default=0.4, help="assumed share of the peak FLOP/s (0.4)")
    parser.add_argument("--zero", type=int, choices=[0, 1, 2, 3], default=1, help="ZeRO stage of the run (1)")
    parser.add_argument("--rails", type=positive, help="network adapters of a node (one for each GPU)")
    parser.add_argument(
        "--host-ms", type=_milliseconds, default=13.0, help="milliseconds to issue a step's kernels (13)"
    )
    parser.add_argument(
        "--scaling", action="store_true", help="simulate 1 to 16 nodes, and growing batches on up to 64"
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="dotted config key and its value")


def main(args: argparse.Namespace) -> None:
    config = load_config(args.config, args.overrides)
    check_ranks(config.data, args.nodes * args.gpus, config.accumulate)
    from relvlm.plan import scaling, scaling_tables  # import torch, which a wrong config need not wait for
    from relvlm.plan.estimate import plan

    host = args.host_ms / 1000
    cluster = Cluster(DEVICES[args.device], args.nodes, args.gpus, args.zero, args.mfu, host, args.rails)
    plans = {way: plan(exact(config), cluster, way) for way in ("ours", "official")}
    options = not_exact(config)
    if len(options) > 1:
        options["all of these (not exact)"] = config
    saving = {name: plan(chosen, cluster, "ours") for name, chosen in options.items()}
    millions = plans["ours"].parameters / 1e6
    print(f"{config.name}: {millions:.1f}M parameters, {config.steps:,} steps, {config.dtype}")
    print(f"{args.nodes} x {args.gpus} {args.device}, ZeRO-{args.zero}\n")
    for table in (_steps(plans), _memory(config, cluster, plans), _recipe(cluster, plans)):
        print("\n".join(table) + "\n")
    rows = scaling.strong(exact(config), cluster)
    if args.scaling:
        grown = scaling.weak(exact(config), cluster)
        for table in (scaling_tables.strong_table(rows), scaling_tables.weak_table(grown)):
            print("\n".join(table) + "\n")
    print(f"{scaling_tables.fitting_gpus(config)}\n{scaling_tables.recommendation(rows)}\n")
    if saving:
        print("\n".join(_not_exact(cluster, plans["ours"], saving)) + "\n")
    print(_assumptions(config, args.mfu, args.host_ms))


def _steps(plans: dict[str, Plan]) -> list[str]:
    lines = [
        "| step | TFLOP, ours | official | ratio | s, ours | official | of it waiting for others | MB to collectives |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for kind, ours in plans["ours"].steps.items():
        official = plans["official"].steps[kind]
        tera, plain = (sum(step.flops.values()) / 1e12 for step in (ours, official))
        lines.append(
            f"| {kind} | {tera:.1f} | {plain:.1f} | {plain / tera:.2f}x | {ours.seconds:.3f} "
            f"| {official.seconds:.3f} | {ours.communicate / ours.seconds:.0%} "
            f"| {sum(ours.traffic.values()) / 1e6:.0f} |"
        )
    return lines


def _memory(config: Config, cluster: Cluster, plans: dict[str, Plan]) -> list[str]:
    element = 2 if config.dtype == "bf16" else 4
    capacity = cluster.device.memory / GIB
    teacher = plans["ours"].teacher
    weights = "weights, teacher" if teacher else "weights"
    lines = [
        f"| GiB of a GPU ({capacity:.0f}) | {weights} | gradients | optimizer | activations | sum, ours | official |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    kept, plain = (sum(plans[way].activations.values()) / GIB for way in ("ours", "official"))
    for stage in range(4):
        parts = states(plans["ours"].parameters, stage, cluster.gpus, element)
        parts["weights"] += teacher
        shown = " | ".join(f"{size / GIB:.2f}" for size in parts.values())
        fixed = sum(parts.values()) / GIB
        lines.append(f"| ZeRO-{stage} | {shown} | {kept:.2f} | {fixed + kept:.1f} | {fixed + plain:.1f} |")
    return lines


def _recipe(cluster: Cluster, plans: dict[str, Plan]) -> list[str]:
    lines = ["| whole recipe | s a step | TFLOP a step | hours | GPU-hours |", "|---|---:|---:|---:|---:|"]
    for way, found in plans.items():
        hours = found.total_seconds / HOUR
        lines.append(
            f"| {way} | {found.mean_seconds:.3f} | {found.mean_flops / 1e12:.1f} | {hours:.1f} "
            f"| {hours * cluster.gpus:,.0f} |"
        )
    return lines


def _not_exact(cluster: Cluster, ours: Plan, saving: dict[str, Plan]) -> list[str]:
    """What options that change the losses save of our exact step."""
    lines = [
        "| ours with | TFLOP a step | FLOPs saved | hours | GPU-hours | activations, GiB |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, found in saving.items():
        hours, kept = found.total_seconds / HOUR, sum(found.activations.values()) / GIB
        lines.append(
            f"| {name} | {found.mean_flops / 1e12:.1f} | {1 - found.mean_flops / ours.mean_flops:.0%} "
            f"| {hours:.1f} | {hours * cluster.gpus:,.0f} | {kept:.2f} |"
        )
    return lines


def _assumptions(config: Config, mfu: float, host_ms: float) -> str:
    chunks = config.accumulate
    ours = f"our step in {chunks} chunks (accumulate), the official one whole; " if chunks > 1 else ""
    again = "; model.recompute is left out (less memory, a third more FLOPs)" if config.model.recompute else ""
    return (
        f"Assumed: {mfu:.0%} of the device's {config.dtype} peak on both sides (which spares the official way its "
        f"copies' memory traffic); training = 3 forwards; {ours}{host_ms:g} ms to issue a chunk's kernels; NCCL's own "
        f"latencies, {REACHED:.0%} of what links within a node or all its adapters together carry; gradients reduced "
        "during the backward pass as the ZeRO stage does it; "
        f"captions of {CAPTION_TOKENS} tokens, labels of {LABEL_TOKENS}, triplets of {TRIPLET_TOKENS}; boxes over "
        f"{SEEN_BY_A_REGION:.0%} of the patches; activations of the kind that keeps most, without workspaces and "
        f"fragmentation; data loading keeps up{again}."
    )


def _share(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{value}: must be above 0 and at most 1")
    return value


def _milliseconds(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{value}: must be a number of milliseconds from 0 up")
    return value
