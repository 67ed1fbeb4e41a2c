"""What a stage is told, and the rows that it writes."""

from __future__ import annotations

import argparse
import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROWS = "rows.jsonl"
TOOLKIT = "/usr/local/cuda/bin:/usr/local/cuda/compute-sanitizer:/opt/nvidia/nsight-compute"
STAND_INS = "GPU_CHECK_TOOLS"  # names a folder


@dataclass(frozen=True)
class Check:
    """A run of one stage. Its rows are appended to `out`/rows.jsonl as they are measured: none is lost by a kill.

    A rehearsal runs on the CPU at toy size, so that no argument, package or unit is wrong when a GPU is at hand.
    """

    stage: str
    out: Path
    rehearsal: bool = False

    @classmethod
    def from_arguments(cls, stage: str) -> Check:
        parser = argparse.ArgumentParser(description=f"Stage {stage} of the GPU check.")
        parser.add_argument("--out", type=Path, required=True)
        parser.add_argument("--rehearse", action="store_true")
        args = parser.parse_args()
        return cls(stage, args.out, args.rehearse)

    @property
    def options(self) -> list[str]:
        """For a program that runs on the same device."""
        return ["--rehearse"] * self.rehearsal

    def tool(self, name: str) -> str | None:
        """Path of a program of the CUDA toolkit; in a rehearsal of a stand-in for it, if there is one."""
        if self.rehearsal:
            return shutil.which(name, path=os.environ.get(STAND_INS, ""))
        return shutil.which(name) or shutil.which(name, path=TOOLKIT)

    def row(self, **values: Any) -> None:
        """Appends one row, and prints it."""
        values = {name: _short(value) for name, value in values.items()}
        append(self.out, {"stage": self.stage} | values)
        print(json.dumps(values), flush=True)


def _short(value: Any) -> Any:
    """Five digits of a number: no measurement has more."""
    return float(f"{value:.5g}") if isinstance(value, float) else value


def append(out: Path, row: dict[str, Any]) -> None:
    with (out / ROWS).open("a") as file:
        file.write(json.dumps(row) + "\n")


def read(out: Path) -> list[dict[str, Any]]:
    """All rows; a last one that a kill cut short is left out."""
    path = out / ROWS
    return list(_whole(path.read_text().splitlines())) if path.exists() else []


def _whole(lines: Iterable[str]) -> Iterable[dict[str, Any]]:
    for line in lines:
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            continue


def latest(rows: list[dict[str, Any]], stage: str) -> list[dict[str, Any]]:
    """Those of the stage's last run."""
    begins = [i for i, row in enumerate(rows) if row["stage"] == "begin" and row["of"] == stage]
    return [row for row in rows[begins[-1] :] if row["stage"] == stage] if begins else []
