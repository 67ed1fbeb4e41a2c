"""What Nsight Compute reads of each attention kernel, without and with dropout, in one call of either backend.

The program is one_call.py. Where there is no ncu, Nsight Systems' summary of kernels, if that is there.
"""

from __future__ import annotations

import csv
import subprocess
import sys

from gpu_check.check import Check

KERNELS = "regex:attend|backward_of_queries|backward_of_keys|attention_forward|attention_backward"
SECTIONS = (
    "SpeedOfLight",
    "LaunchStats",
    "Occupancy",
    "ComputeWorkloadAnalysis",
    "MemoryWorkloadAnalysis",
    "WarpStateStats",
)
KEPT = {  # of ncu's names
    "Duration": "duration", "DRAM Throughput": "dram", "Memory Throughput": "memory", "Compute (SM) Throughput": "sm",
    "Registers Per Thread": "registers", "Achieved Occupancy": "occupancy", "Issue Slots Busy": "issue_slots",
    "Executed Ipc Active": "ipc", "L2 Hit Rate": "l2_hits", "Warp Cycles Per Issued Instruction": "cycles_per_issue",
    "Grid Size": "blocks", "Waves Per SM": "waves",
}  # fmt: skip


def main(check: Check) -> int:
    program = [sys.executable, "-u", "-m", "gpu_check.one_call", *check.options, "--out", str(check.out)]
    ncu, nsys = check.tool("ncu"), check.tool("nsys")
    if ncu:
        return _compute(check, ncu, program)
    check.row(what="missing", why="no ncu on PATH or in /usr/local/cuda: the calls run without it")
    tracing = [nsys, "profile", "--stats=true", "--force-overwrite=true", "-o", str(check.out / "nsys")] if nsys else []
    return subprocess.run([*tracing, *program]).returncode


def _compute(check: Check, ncu: str, program: list[str]) -> int:
    """The machine's clocks stay as they are: others may share it."""
    sections = [part for name in SECTIONS for part in ("--section", name)]
    command = [
        ncu, "--csv", "--page", "details", "--print-units", "base", "--clock-control", "none",
        "--profile-from-start", "off", "--target-processes", "all", "--kernel-name", KERNELS, *sections, *program,
    ]  # fmt: skip
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    print(done.stdout[-200_000:])
    found = kernels_of(done.stdout)
    for kernel in found:
        check.row(what="kernel", **kernel)
    if not found:
        check.row(what="nothing read", status=done.returncode, said=done.stdout[-800:])
    return done.returncode or int(not found)


def kernels_of(text: str) -> list[dict[str, object]]:
    """One row a kernel from ncu's table, which has one a metric; lines before it are the program's own."""
    lines = text.splitlines()
    start = next((i for i, line in enumerate(lines) if line.startswith('"ID"')), len(lines))
    kernels: dict[str, dict[str, object]] = {}
    for line in csv.DictReader(lines[start:]):
        number, metric = line.get("ID"), line.get("Metric Name")
        if not number or not number.isdigit() or metric not in KEPT:
            continue
        kernel = kernels.setdefault(number, {"name": line.get("Kernel Name", "")})
        kernel[KEPT[metric]] = f"{line.get('Metric Value', '')} {line.get('Metric Unit', '')}".strip()
    return list(kernels.values())


if __name__ == "__main__":
    sys.exit(main(Check.from_arguments("nsight")))
