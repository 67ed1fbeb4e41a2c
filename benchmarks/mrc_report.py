"""The table, the waterfall and the plot of `mrc_kernel.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

STAGES = ("forward", "backward", "branch")


def print_table(row: dict[str, Any]) -> None:
    shape = row["shape"]
    low, high = (round(100 * side) for side in shape["sides"])
    print(f"\n{title(shape)}, sides {low}-{high}%, {shape['images']} images, {row['tokens']} tokens")
    for stage in STAGES:
        for name, cell in row[stage].items():
            if "error" in cell:
                print(f"  {stage:9s} {name:12s} {cell['error']}")
            else:
                print(f"  {stage:9s} {name:12s} {cell['ms']:9.3f} ms {_times(cell, name):>12s}  {_extra(cell)}")
    for line in troubles(row):
        print(f"  {line}")


def title(shape: dict[str, Any]) -> str:
    """Its name, and what makes it slower."""
    slower = ", mean token" * shape["mean"] + (", dropout" if shape["dropout"] else "")
    return shape["name"] + slower


def troubles(row: dict[str, Any]) -> list[str]:
    """What was not measured, or is not right."""
    lines = [f"{name}: not tried: {reason}" for name, reason in row["refused"].items()]
    wrong = row["wrong"] | {
        f"{name}, branch": {"off": cell["off"]} for name, cell in row["branch"].items() if "off" in cell
    }
    for name, what in wrong.items():
        off = ", ".join(f"{part} by {by:.1e}" for part, by in what.get("off", {}).items())
        lines.append(f"{name}: {what.get('error') or f'OFF from fp64: {off} of the largest number'}")
    return lines


def _times(cell: dict[str, float], name: str) -> str:
    return "" if name == "ours" or "ratio" not in cell else f"ours x{cell['ratio']:.1f}"


def _extra(cell: dict[str, float]) -> str:
    if "peak_bytes" in cell:
        return f"peak {cell['peak_bytes'] / 2**20:8.1f} MiB (x{cell.get('peak_ratio', 0):.1f})"
    return (
        f"{cell['gemm_fraction']:6.1%} of GEMM, {cell['copy_fraction']:6.1%} of copy, "
        f"{cell['roofline_fraction']:6.1%} of the roofline"
    )


def waterfall(row: dict[str, Any]) -> str:
    """How much of the branch's gain is sharing keys and values, and how much the op."""
    branch = row["branch"]
    if any("ms" not in branch.get(name, {}) for name in ("ours", "packed mask", "replicate")):
        return ""
    ours, shared, copied = (branch[name]["ms"] for name in ("ours", "packed mask", "replicate"))
    saved = copied - ours
    return (
        f"\nOf the branch's x{copied / ours:.1f} at {row['shape']['name']}: keys and values once per image "
        f"x{copied / shared:.1f} ({(copied - shared) / saved:.0%} of the time saved), "
        f"region_cross_attention x{shared / ours:.2f} ({(shared - ours) / saved:.0%})"
    )


def markdown(result: dict[str, Any]) -> str:
    """The table that lies beside the JSON."""
    limits = result["machine"]
    lines = [
        f"`{result['command']}` at {result['commit']}: {result['device']}, {result['threads']} threads, "
        f"{result['dtype']}; GEMM {limits['flops_per_s'] / 1e9:.0f} GFLOP/s, "
        f"copy {limits['bytes_per_s'] / 1e9:.1f} GB/s; torch {result['torch']}.",
        "",
        "| shape | stage | way | ms | ours is faster | of GEMM rate | of copy bandwidth | peak MiB |",
        "|---|---|---|---:|---:|---:|---:|---:|",
    ]
    for row in result["shapes"]:
        for stage in STAGES:
            lines += [_line(title(row["shape"]), stage, name, cell) for name, cell in row[stage].items()]
    lines += [f"\n{title(row['shape'])}: {line}" for row in result["shapes"] for line in troubles(row)]
    return "\n".join([*lines, waterfall(result["shapes"][0]), ""])


def _line(shape: str, stage: str, name: str, cell: dict[str, float]) -> str:
    if "error" in cell:
        return f"| {shape} | {stage} | {name} | {cell['error']} | | | | |"
    ratio = "" if name == "ours" or "ratio" not in cell else f"{cell['ratio']:.1f}x"
    rates = ["", ""] if "peak_bytes" in cell else [f"{cell[f'{r}_fraction']:.0%}" for r in ("gemm", "copy")]
    peak = f"{cell['peak_bytes'] / 2**20:.0f}" if "peak_bytes" in cell else ""
    return f"| {shape} | {stage} | {name} | {cell['ms']:.2f} | {ratio} | {rates[0]} | {rates[1]} | {peak} |"


def plot(result: dict[str, Any], path: Path) -> None:
    """Time of each way over ours, a panel for each stage, logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(STAGES), figsize=(15, 1.5 + 0.55 * len(result["shapes"])), sharey=True)
    for axis, stage in zip(axes, STAGES, strict=True):
        names = [name for name in result["shapes"][0][stage] if name != "ours"]
        for i, name in enumerate(names):
            places = [y + 0.8 * i / len(names) for y in range(len(result["shapes"]))]
            axis.barh(
                places,
                [row[stage].get(name, {}).get("ratio", 0) for row in result["shapes"]],
                0.7 / len(names),
                label=name,
            )
        axis.axvline(1, color="black", linewidth=1)
        axis.set(xscale="log", title=stage, xlabel="time over ours")
        axis.legend()
    axes[0].set_yticks(range(len(result["shapes"])), [title(row["shape"]) for row in result["shapes"]])
    figure.suptitle(f"{result['device']}, {result['threads']} threads, {result['dtype']}")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
