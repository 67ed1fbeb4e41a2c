"""The tables of train_step.py."""

from __future__ import annotations

from typing import Any


def print_row(row: dict[str, Any], header: bool) -> None:
    """A line of the table, after its head if asked; ratios over the padded official way, then over the trimmed."""
    if header:
        print("| size | batch | images | ours, s | padded, trimmed, s | time | FLOPs | kept memory | MFU |")
        print("|---|---|---:|---:|---:|---:|---:|---:|---:|")
    sides = [row["official"], row["trimmed"]]
    cells = [
        f"{row['seconds']:.3f}",
        ", ".join(f"{side['seconds']:.3f}" for side in sides),
        ", ".join(f"{side['time_ratio']:.2f}x" for side in sides),
        ", ".join(f"{side['flop_ratio']:.2f}x" for side in sides),
        ", ".join(f"{side['memory_ratio']:.0%}" for side in sides),
        f"{row['mfu']:.0%}",
    ]
    print(f"| {row['size']} | {row['kind']} | {row['images']} | {' | '.join(cells)} |", flush=True)


def print_waterfall(row: dict[str, Any]) -> None:
    """The official way, and each thing of ours in turn."""
    print(f"\n| {row['size']} {row['kind']}: with | s | kept, MiB |\n|---|---:|---:|")
    for step in row["waterfall"]:
        print(f"| {step['with']} | {step['seconds']:.3f} | {step['kept_bytes'] / 2**20:.0f} |")
