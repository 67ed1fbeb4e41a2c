"""The tables of train_step.py."""

from __future__ import annotations

from typing import Any


def print_row(row: dict[str, Any], header: bool) -> None:
    """A line of the table, after its head if asked."""
    if header:
        print("| size | batch | images | ours, s | official, s | time | same AdamW | FLOPs | kept memory | MFU |")
        print("|---|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    print(
        f"| {row['size']} | {row['kind']} | {row['images']} | {row['seconds']:.3f} | {row['official_seconds']:.3f} "
        f"| {row['time_ratio']:.2f}x | {row['same_adamw_ratio']:.2f}x | {row['flop_ratio']:.2f}x "
        f"| {row['memory_ratio']:.0%} | {row['mfu']:.0%} |",
        flush=True,
    )


def print_waterfall(row: dict[str, Any]) -> None:
    """The official way, and each thing of ours in turn."""
    print(f"\n| {row['size']} {row['kind']}: with | s | kept, MiB |\n|---|---:|---:|")
    for step in row["waterfall"]:
        print(f"| {step['with']} | {step['seconds']:.3f} | {step['kept_bytes'] / 2**20:.0f} |")
